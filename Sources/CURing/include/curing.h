// SPDX-License-Identifier: Apache-2.0
// liburing for Swift. <features.h> must come first: liburing.h sets feature macros that otherwise change the C library's
// types under Swift's Glibc module, and the first build of a clean tree fails.
#ifndef SPINDLE_CURING_H
#define SPINDLE_CURING_H

#include <features.h>
#include <liburing.h>

#endif
