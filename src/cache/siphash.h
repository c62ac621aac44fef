/* SipHash-1-3 (Aumasson and Bernstein, 2012): a keyed hash for tables whose keys strangers choose.
 * Who does not know the secret cannot make keys that meet in one place. One and three rounds are
 * what Rust, Ruby and Python use for their tables. */
#ifndef HOLDFAST_CACHE_SIPHASH_H
#define HOLDFAST_CACHE_SIPHASH_H

#include "base/base.h"

uint64_t siphash(const uint64_t secret[2], struct str s);

#endif
