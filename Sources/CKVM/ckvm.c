// SPDX-License-Identifier: Apache-2.0
// A C target needs a source file; all of this one is in its header.
#include "ckvm.h"
