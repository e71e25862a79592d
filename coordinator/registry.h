/*
 * Who may call: the roster of members, checked on every call, also of connections that are open already; and when each was last here.
 *
 * The roster is a copy of the database's table that is replaced as a whole after each change of it: a check waits for nobody and reads no
 * disk. A certificate is good when its identity is enrolled and its public key is the one that was pinned at enrolment. thread: any.
 */
#ifndef HANSA_COORDINATOR_REGISTRY_H
#define HANSA_COORDINATOR_REGISTRY_H

#include "coordinator/db.h"

struct registry;

MUST_CHECK enum err registry_open(struct db *db, struct registry **ret_registry); /* `db` is borrowed */
void registry_close(struct registry *r);                                          /* NULL is fine; does not flush */
MUST_CHECK enum err
registry_reload(struct registry *r); /* after each change of members; the old roster stays on failure */

/* In force from here on, whatever the disk says: no later reload brings this enrolment back. Whoever is not enrolled stays as it is. */
void registry_revoke(struct registry *r, enum role role, const char *name);

/* ERR_DENIED with a text for the peer: unknown, revoked, another key, a certificate that has expired (a connection may outlive it). The
 * federation has been compared by the server. */
MUST_CHECK enum err registry_check(struct registry *r, const struct identity *id, const struct digest *key,
				   int64_t now_ms);
bool registry_is_enrolled(struct registry *r, enum role role, const char *name);
/* Names of all enrolled plants, sorted, each followed by a line feed; buf_init's it. */
MUST_CHECK enum err registry_plants(struct registry *r, struct buf *ret_names);

/* Somebody called. `software` NULL: as before. */
void registry_saw(struct registry *r, enum role role, const char *name, const char *software, int64_t now_ms);
/* Write the last calls to the database. */
MUST_CHECK enum err registry_flush(struct registry *r);
/* Members and open invitations as operators see them. wire_members_free(). */
MUST_CHECK enum err registry_list(struct registry *r, struct wire_members *ret_members);

#endif
