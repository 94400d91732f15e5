// clang-format off
//go:build ignore
// clang-format on

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* All programs of capture, one object: they share its maps. Each concern has a file of its own. */
#include <stdbool.h>
#include <stddef.h>

#include "maps.h"
#include "connect.h"
#include "guard.h"
#include "guard_packet.h"
#include "peer.h"
#include "sock_ops.h"
#include "get_origin.h"

char _license[] SEC("license") = "GPL";
