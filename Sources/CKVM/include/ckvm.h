// SPDX-License-Identifier: Apache-2.0
// The KVM interface for Swift: request numbers (macros that Swift does not import) as constants.
#ifndef SPINDLE_CKVM_H
#define SPINDLE_CKVM_H

#include <features.h>
#include <linux/kvm.h>

#endif
