/*
 * Members and invitations. A name is taken by a member or by one unused invitation; used invitations stay for a while,
 * so that a plant whose answer was lost can ask again.
 */
#include "coordinator/db_schema.h"
#include "update/fixed.h"

#include <stdlib.h>
#include <string.h>

static const int64_t keep_ms = 30 * 24 * 3600 * INT64_C(1000); /* expired invitations */

static const char *const state_names[MEMBER_STATE_COUNT] = {
	[MEMBER_ENROLLED] = "enrolled", [MEMBER_REVOKED] = "revoked"};

const char *member_state_name(enum member_state state)
{
	ENSURE((unsigned)state < MEMBER_STATE_COUNT);
	return state_names[state];
}

/* ---- members ---- */

static enum err put_member(struct db *db, const struct member *m)
{
	struct query *q = sql_query(
		db->sql,
		"INSERT INTO member (role, name, state, key, expires_ms, enrolled_ms) VALUES (?, ?, ?, ?, ?, ?) "
		"ON CONFLICT (role, name) DO UPDATE SET state = excluded.state, key = excluded.key, "
		"expires_ms = excluded.expires_ms, enrolled_ms = excluded.enrolled_ms, revoked_ms = 0");
	sql_bind_text(q, role_name(m->role));
	sql_bind_text(q, m->name);
	sql_bind_text(q, state_names[MEMBER_ENROLLED]);
	db_bind_digest(q, &m->key);
	sql_bind_int(q, m->expires_ms);
	sql_bind_int(q, m->enrolled_ms);
	return sql_end(q);
}

enum err db_member_put(struct db *db, const struct member *m)
{
	return put_member(db, m);
}

#define MEMBER_COLUMNS "role, name, state, key, expires_ms, enrolled_ms, revoked_ms, seen_ms, software"

static void read_member(struct query *q, struct member *m)
{
	*m = (struct member){.role = db_role(q, 0), .key = db_digest(q, 3)};
	db_text(q, 1, m->name, sizeof m->name);
	const char *state = sql_text(q, 2);
	while (m->state < MEMBER_STATE_COUNT && strcmp(state, state_names[m->state]) != 0)
		m->state++;
	if (m->state == MEMBER_STATE_COUNT)
		sql_spoil(q, "'%.40s' is not a member's state", state);
	m->expires_ms = sql_int(q, 4);
	m->enrolled_ms = sql_int(q, 5);
	m->revoked_ms = sql_int(q, 6);
	m->seen_ms = sql_int(q, 7);
	db_text(q, 8, m->software, sizeof m->software);
}

enum err db_member_get(struct db *db, enum role role, const char *name, struct member *ret_member)
{
	struct member m;
	struct query *q = sql_query(db->sql, "SELECT " MEMBER_COLUMNS " FROM member WHERE role = ? AND name = ?");
	sql_bind_text(q, role_name(role));
	sql_bind_text(q, name);
	bool found = sql_next(q);
	if (found)
		read_member(q, &m);
	TRY(sql_end(q));
	if (!found)
		return err_set(ERR_NOT_FOUND, "no %s of the name %s", role_name(role), name);
	*ret_member = m;
	return ERR_OK;
}

enum err db_member_list(struct db *db, struct member **ret_members, size_t *ret_n)
{
	struct member *list = NULL;
	size_t n = 0;
	struct query *q = sql_query(db->sql, "SELECT " MEMBER_COLUMNS " FROM member ORDER BY role, name");
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_member(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_members = list;
	*ret_n = n;
	return ERR_OK;
}

static enum err forget_unused(struct db *db, enum role role, const char *name, int64_t *ret_forgotten)
{
	struct query *q = sql_query(db->sql, "DELETE FROM invite WHERE role = ? AND name = ? AND used_ms = 0");
	sql_bind_text(q, role_name(role));
	sql_bind_text(q, name);
	TRY(sql_end(q));
	*ret_forgotten = sql_changes(db->sql);
	return ERR_OK;
}

static enum err revoke(struct db *db, enum role role, const char *name, int64_t now_ms)
{
	int64_t forgotten;
	TRY(forget_unused(db, role, name, &forgotten));
	struct query *q = sql_query(db->sql, "UPDATE member SET state = 'revoked', revoked_ms = ? WHERE role = ? AND "
					     "name = ? AND state = 'enrolled'");
	sql_bind_int(q, now_ms);
	sql_bind_text(q, role_name(role));
	sql_bind_text(q, name);
	TRY(sql_end(q));
	if (sql_changes(db->sql) + forgotten == 0)
		return err_set(ERR_NOT_FOUND, "no %s %s is enrolled or invited", role_name(role), name);
	/* Used codes go too: they would give the old certificate once more. */
	q = sql_query(db->sql, "DELETE FROM invite WHERE role = ? AND name = ?");
	sql_bind_text(q, role_name(role));
	sql_bind_text(q, name);
	return sql_end(q);
}

enum err db_member_revoke(struct db *db, enum role role, const char *name, int64_t now_ms)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, revoke(db, role, name, now_ms));
}

static enum err write_seen(struct db *db, const struct member *m)
{
	struct query *q = sql_query(db->sql, "UPDATE member SET seen_ms = ?, software = ? WHERE role = ? AND name = ?");
	sql_bind_int(q, m->seen_ms);
	sql_bind_text(q, m->software);
	sql_bind_text(q, role_name(m->role));
	sql_bind_text(q, m->name);
	return sql_end(q);
}

enum err db_member_seen(struct db *db, const struct member *members, size_t n)
{
	TRY(sql_begin(db->sql));
	enum err err = ERR_OK;
	for (size_t i = 0; err == ERR_OK && i < n; i++)
		err = write_seen(db, &members[i]);
	return sql_end_transaction(db->sql, err);
}

/* ---- invitations ---- */

void invite_deinit(struct invite *i)
{
	buf_deinit(&i->certificate);
}

static enum err check_room(struct db *db, enum role role)
{
	int64_t all, plants;
	TRY(db_ask_number(db, "SELECT (SELECT count(*) FROM member) + (SELECT count(*) FROM invite WHERE used_ms = 0)",
			  &all));
	TRY(db_ask_number(db,
			  "SELECT (SELECT count(*) FROM member WHERE role = 'plant' AND state = 'enrolled') + "
			  "(SELECT count(*) FROM invite WHERE role = 'plant' AND used_ms = 0)",
			  &plants));
	if (all >= DB_MEMBERS_MAX)
		return err_set(ERR_LIMIT, "a federation has at most %d members and open invitations", DB_MEMBERS_MAX);
	if (role == ROLE_PLANT && plants >= FIXED_PLANTS_MAX)
		return err_set(ERR_LIMIT, "a federation has at most %d plants and open invitations of plants",
			       FIXED_PLANTS_MAX);
	return ERR_OK;
}

static enum err put_invite(struct db *db, const struct invite *i)
{
	int64_t forgotten;
	TRY(forget_unused(db, i->role, i->name, &forgotten));
	struct query *q = sql_query(db->sql, "DELETE FROM invite WHERE expires_ms < ?");
	sql_bind_int(q, i->created_ms - keep_ms);
	TRY(sql_end(q));
	TRY(check_room(db, i->role));
	q = sql_query(db->sql,
		      "INSERT INTO invite (secret, role, name, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?)");
	db_bind_digest(q, &i->secret);
	sql_bind_text(q, role_name(i->role));
	sql_bind_text(q, i->name);
	sql_bind_int(q, i->created_ms);
	sql_bind_int(q, i->expires_ms);
	return sql_end(q);
}

enum err db_invite_put(struct db *db, const struct invite *i)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, put_invite(db, i));
}

static void read_invite(struct query *q, struct invite *i)
{
	*i = (struct invite){.secret = db_digest(q, 0), .role = db_role(q, 1), .key = db_digest(q, 6)};
	db_text(q, 2, i->name, sizeof i->name);
	i->created_ms = sql_int(q, 3);
	i->expires_ms = sql_int(q, 4);
	i->used_ms = sql_int(q, 5);
}

#define INVITE_COLUMNS "secret, role, name, created_ms, expires_ms, used_ms, key"

enum err db_invite_get(struct db *db, const struct digest *secret, struct invite *ret_invite)
{
	struct invite i = {0};
	struct query *q = sql_query(db->sql, "SELECT " INVITE_COLUMNS ", certificate FROM invite WHERE secret = ?");
	db_bind_digest(q, secret);
	bool found = sql_next(q);
	if (found) {
		read_invite(q, &i);
		db_buf(q, 7, WIRE_PEM_MAX, &i.certificate);
	}
	enum err err = sql_end(q);
	if (err == ERR_OK && !found)
		err = err_set(ERR_NOT_FOUND, "no such invitation");
	if (err != ERR_OK) {
		invite_deinit(&i);
		return err;
	}
	*ret_invite = i;
	return ERR_OK;
}

enum err db_invite_list(struct db *db, struct invite **ret_invites, size_t *ret_n)
{
	struct invite *list = NULL;
	size_t n = 0;
	struct query *q =
		sql_query(db->sql, "SELECT " INVITE_COLUMNS " FROM invite WHERE used_ms = 0 ORDER BY role, name");
	while (sql_next(q)) {
		list = DB_GROW(list, n);
		read_invite(q, &list[n++]);
	}
	enum err err = sql_end(q);
	if (err != ERR_OK) {
		free(list);
		return err;
	}
	*ret_invites = list;
	*ret_n = n;
	return ERR_OK;
}

static enum err use_invite(struct db *db, const struct digest *secret, const struct member *m, struct bytes certificate)
{
	struct query *q = sql_query(
		db->sql, "UPDATE invite SET used_ms = ?, key = ?, certificate = ? WHERE secret = ? AND used_ms = 0");
	sql_bind_int(q, m->enrolled_ms);
	db_bind_digest(q, &m->key);
	sql_bind_bytes(q, certificate);
	db_bind_digest(q, secret);
	TRY(sql_end(q));
	if (sql_changes(db->sql) != 1)
		return err_set(ERR_STATE, "the invitation of %s was used or taken back meanwhile", m->name);
	return put_member(db, m);
}

enum err db_invite_use(struct db *db, const struct digest *secret, const struct member *m, struct bytes certificate)
{
	TRY(sql_begin(db->sql));
	return sql_end_transaction(db->sql, use_invite(db, secret, m, certificate));
}
