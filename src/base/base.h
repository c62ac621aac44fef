/* base: what every other room stands on, and which knows nothing of registries.
 *
 * Owns: memory and clean-up helpers, strings and buffers, the arena of a call, the error
 * carrier, clocks, checked numbers, hashes with serialisable state, and the log.
 * Never: keeps state about requests, reads configuration, or opens files by itself.
 * Threads: every function may be called from any thread; objects belong to one thread at a time
 * unless their comment says otherwise. */
#ifndef HOLDFAST_BASE_H
#define HOLDFAST_BASE_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/call.h"
#include "base/clock.h"
#include "base/crash.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/str.h"

#endif
