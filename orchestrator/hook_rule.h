/* SPDX-License-Identifier: Apache-2.0
 * What spec.notifications may say: [{url, events, secret}]. Requests to addresses that tenants name
 * would reach whatever the orchestrator can reach; so nothing is allowed but URLs that begin with a
 * prefix of --webhook-allow. Pure but for that list, which is set once, before all else.
 */
#ifndef TRIB_ORCHESTRATOR_HOOK_RULE_H
#define TRIB_ORCHESTRATOR_HOOK_RULE_H

#include "common/json.h"

#define ORC_HOOKS_MAX       4 /* of a job */
#define ORC_HOOK_URL_MAX    512
#define ORC_HOOK_EVENTS_MAX 16
#define ORC_HOOK_SECRET_MIN 16
#define ORC_HOOK_SECRET_MAX 128

/* "https://hooks.example.com/,http://127.0.0.1:9000/x/", borrowed; NULL: none. -EINVAL with a
 * reason: a prefix that is not http(s)://host/.. and so would allow other hosts, too. */
TRIB_MUST_CHECK int orc_hooks_allow(const char *prefixes, const char **ret_reason);
/* NULL when `hooks` is right; else why, and where in *ret_pointer ("/0/url"). */
const char *orc_hooks_wrong(const json_t *hooks, char *ret_pointer, size_t size);
/* Does a hook of `events` (NULL: job.*, round.*, model.*) want this type? */
bool orc_hook_wants(const json_t *events, const char *type);
/* Takes the secrets out of a spec that is shown. */
void orc_hooks_redact(json_t *spec);

#endif
