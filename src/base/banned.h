/* Functions that this project does not use. Included into every file before anything else. */
#ifndef HOLDFAST_BASE_BANNED_H
#define HOLDFAST_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if __has_include(<postgres_ext.h>) /* only where libpq is used: a macro of it names one of them \
                                     */
#include <postgres_ext.h>
#endif

#ifndef __clang__ /* warns where glibc has macros of these names */
#pragma GCC poison strcpy strcat sprintf vsprintf strncpy strncat strtok atoi atol atoll strtol
#pragma GCC poison strtoul strtoll strtoull sscanf gets localtime gmtime asctime ctime rand srand
#pragma GCC poison system popen tmpnam mktemp
#endif

#endif
