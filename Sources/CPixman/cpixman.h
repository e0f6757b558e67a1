// SPDX-License-Identifier: Apache-2.0
// pixman for Swift. The flags of pkg-config's pixman-1 lead to the header.
#ifndef SPINDLE_CPIXMAN_H
#define SPINDLE_CPIXMAN_H

#include <pixman.h>

#endif
