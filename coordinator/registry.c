/*
 * One sorted array under a mutex that is held for a binary search. A reload builds the new array first and swaps it in; the times of the
 * last calls are carried over, as they are newer here than in the database.
 */
#include "coordinator/registry.h"

#include "update/fixed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	struct member m;
	bool unwritten; /* seen_ms or software is newer than in the database */
	bool barred;    /* revoked here; the database may not know it */
};

struct registry {
	struct db *db;             /* borrowed */
	pthread_mutex_t reloading; /* one at a time, so that an older reading never replaces a newer one */
	pthread_mutex_t lock;      /* what follows */
	struct entry *entries;     /* owned; sorted by role and name */
	size_t n;
};

static int compare_key(enum role role, const char *name, const struct member *m)
{
	if (role != m->role)
		return role < m->role ? -1 : 1;
	return strcmp(name, m->name);
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	return compare_key(x->m.role, x->m.name, &y->m);
}

static struct entry *find(const struct registry *r, enum role role, const char *name)
{
	size_t low = 0, high = r->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = compare_key(role, name, &r->entries[middle].m);
		if (order == 0)
			return &r->entries[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static void carry_over(const struct registry *r, struct entry *fresh)
{
	const struct entry *old = find(r, fresh->m.role, fresh->m.name);
	if (old != NULL && old->barred && old->m.enrolled_ms == fresh->m.enrolled_ms &&
	    digest_equal(&old->m.key, &fresh->m.key)) {
		fresh->m.state = MEMBER_REVOKED;
		fresh->barred = true;
	}
	if (old == NULL || !old->unwritten)
		return;
	fresh->m.seen_ms = old->m.seen_ms;
	memcpy(fresh->m.software, old->m.software, sizeof fresh->m.software);
	fresh->unwritten = true;
}

static enum err reload(struct registry *r)
{
	struct member *members;
	size_t n;
	TRY(db_member_list(r->db, &members, &n));
	struct entry *entries = mem_array(n, sizeof *entries);
	for (size_t i = 0; i < n; i++)
		entries[i].m = members[i];
	free(members);
	if (n > 0)
		qsort(entries, n, sizeof *entries, compare_entries);
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++)
		carry_over(r, &entries[i]);
	struct entry *old = r->entries;
	r->entries = entries;
	r->n = n;
	pthread_mutex_unlock(&r->lock);
	free(old);
	return ERR_OK;
}

enum err registry_reload(struct registry *r)
{
	pthread_mutex_lock(&r->reloading);
	enum err err = reload(r);
	pthread_mutex_unlock(&r->reloading);
	return err;
}

enum err registry_open(struct db *db, struct registry **ret_registry)
{
	struct registry *r = mem_new(sizeof *r);
	r->db = db;
	pthread_mutex_init(&r->lock, NULL);
	pthread_mutex_init(&r->reloading, NULL);
	enum err err = registry_reload(r);
	if (err != ERR_OK) {
		registry_close(r);
		return err;
	}
	*ret_registry = r;
	return ERR_OK;
}

void registry_close(struct registry *r)
{
	if (r == NULL)
		return;
	pthread_mutex_destroy(&r->lock);
	pthread_mutex_destroy(&r->reloading);
	free(r->entries);
	free(r);
}

void registry_revoke(struct registry *r, enum role role, const char *name)
{
	pthread_mutex_lock(&r->lock);
	struct entry *e = find(r, role, name);
	if (e != NULL && e->m.state == MEMBER_ENROLLED) {
		e->m.state = MEMBER_REVOKED;
		e->barred = true;
	}
	pthread_mutex_unlock(&r->lock);
}

static enum err judge(const struct entry *e, const struct identity *id, const struct digest *key, int64_t now_ms)
{
	if (e == NULL)
		return err_set(ERR_DENIED, "%s %s is not a member of this federation", role_name(id->role), id->name);
	if (e->m.state != MEMBER_ENROLLED)
		return err_set(ERR_DENIED,
			       "the certificate of %s %s has been revoked; ask the operator for a new invitation",
			       role_name(id->role), id->name);
	if (!digest_equal(&e->m.key, key))
		return err_set(ERR_DENIED, "%s %s has enrolled with another key since; use its present credential",
			       role_name(id->role), id->name);
	if (now_ms >= e->m.expires_ms)
		return err_set(ERR_DENIED,
			       "the certificate of %s %s has expired; ask the operator for a new invitation",
			       role_name(id->role), id->name);
	return ERR_OK;
}

enum err registry_check(struct registry *r, const struct identity *id, const struct digest *key, int64_t now_ms)
{
	pthread_mutex_lock(&r->lock);
	enum err err = judge(find(r, id->role, id->name), id, key, now_ms);
	pthread_mutex_unlock(&r->lock);
	return err;
}

bool registry_is_enrolled(struct registry *r, enum role role, const char *name)
{
	pthread_mutex_lock(&r->lock);
	const struct entry *e = find(r, role, name);
	bool enrolled = e != NULL && e->m.state == MEMBER_ENROLLED;
	pthread_mutex_unlock(&r->lock);
	return enrolled;
}

enum err registry_plants(struct registry *r, struct buf *ret_names)
{
	struct buf names;
	enum err err = ERR_OK;
	buf_init(&names, (size_t)FIXED_PLANTS_MAX * WIRE_NAME_SIZE);
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; err == ERR_OK && i < r->n; i++) {
		const struct member *m = &r->entries[i].m;
		if (m->role == ROLE_PLANT && m->state == MEMBER_ENROLLED)
			err = buf_printf(&names, "%s\n", m->name);
	}
	pthread_mutex_unlock(&r->lock);
	if (err != ERR_OK) {
		buf_deinit(&names);
		return err;
	}
	*ret_names = names;
	return ERR_OK;
}

void registry_saw(struct registry *r, enum role role, const char *name, const char *software, int64_t now_ms)
{
	pthread_mutex_lock(&r->lock);
	struct entry *e = find(r, role, name);
	if (e != NULL) {
		e->m.seen_ms = now_ms;
		if (software != NULL)
			snprintf(e->m.software, sizeof e->m.software, "%s", software);
		e->unwritten = true;
	}
	pthread_mutex_unlock(&r->lock);
}

/* Whoever has called again meanwhile is written next time. */
static void mark_written(struct registry *r, const struct member *seen, size_t n)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < n; i++) {
		struct entry *e = find(r, seen[i].role, seen[i].name);
		if (e != NULL && e->m.seen_ms == seen[i].seen_ms && strcmp(e->m.software, seen[i].software) == 0)
			e->unwritten = false;
	}
	pthread_mutex_unlock(&r->lock);
}

enum err registry_flush(struct registry *r)
{
	pthread_mutex_lock(&r->lock);
	struct member *seen = mem_array(r->n, sizeof *seen);
	size_t n = 0;
	for (size_t i = 0; i < r->n; i++) {
		if (r->entries[i].unwritten)
			seen[n++] = r->entries[i].m;
	}
	pthread_mutex_unlock(&r->lock);
	enum err err = n > 0 ? db_member_seen(r->db, seen, n) : ERR_OK;
	if (err == ERR_OK)
		mark_written(r, seen, n);
	free(seen);
	return err;
}

static void show_member(const struct member *m, struct wire_member *out)
{
	*out = (struct wire_member){
		.role = m->role, .expires_ms = (uint64_t)m->expires_ms, .seen_ms = (uint64_t)m->seen_ms};
	snprintf(out->name, sizeof out->name, "%s", m->name);
	snprintf(out->state, sizeof out->state, "%s", member_state_name(m->state));
	snprintf(out->software, sizeof out->software, "%s", m->software);
}

/* Somebody who left and is invited again is shown as invited. */
static struct wire_member *row_for(struct wire_members *list, size_t n_members, const struct invite *i)
{
	for (size_t k = 0; k < n_members; k++) {
		if (list->v[k].role == i->role && strcmp(list->v[k].name, i->name) == 0)
			return &list->v[k];
	}
	return &list->v[list->n++];
}

enum err registry_list(struct registry *r, struct wire_members *ret_members)
{
	struct invite *invites;
	size_t n_invites;
	TRY(db_invite_list(r->db, &invites, &n_invites));
	pthread_mutex_lock(&r->lock);
	struct wire_members list = {.n = r->n, .v = mem_array(r->n + n_invites, sizeof *list.v)};
	for (size_t i = 0; i < r->n; i++)
		show_member(&r->entries[i].m, &list.v[i]);
	pthread_mutex_unlock(&r->lock);
	size_t n_members = list.n;
	for (size_t i = 0; i < n_invites; i++) {
		struct wire_member *m = row_for(&list, n_members, &invites[i]);
		uint64_t seen = m->seen_ms;
		*m = (struct wire_member){
			.role = invites[i].role, .expires_ms = (uint64_t)invites[i].expires_ms, .seen_ms = seen};
		snprintf(m->name, sizeof m->name, "%s", invites[i].name);
		snprintf(m->state, sizeof m->state, "invited");
	}
	free(invites);
	*ret_members = list;
	return ERR_OK;
}
