/*
 * The tables. Names of roles, phases and states are stored as the words that people read, digests as 32 bytes, times as
 * Unix milliseconds. A change of the tables is a row in `versions`: the statements that bring a file of the version
 * before it to this one. What an earlier release wrote is never edited in place here.
 */
#include "coordinator/db_schema.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* clang-format off */
static const char *const versions[] = {
	/* 1 */
	"CREATE TABLE member ("
	"  role TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, key BLOB NOT NULL, expires_ms INTEGER NOT NULL,"
	"  enrolled_ms INTEGER NOT NULL, revoked_ms INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL DEFAULT 0,"
	"  software TEXT NOT NULL DEFAULT '', PRIMARY KEY (role, name)) WITHOUT ROWID;"
	"CREATE TABLE invite ("
	"  secret BLOB NOT NULL PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,"
	"  expires_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL DEFAULT 0, key BLOB, certificate BLOB) WITHOUT ROWID;"
	"CREATE INDEX invite_name ON invite (role, name);"
	"CREATE TABLE job ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, state TEXT NOT NULL, config BLOB NOT NULL,"
	"  config_hash BLOB NOT NULL, manifest BLOB NOT NULL, source BLOB NOT NULL, source_size INTEGER NOT NULL, model BLOB,"
	"  model_size INTEGER NOT NULL DEFAULT 0, model_round INTEGER NOT NULL DEFAULT 0, rounds INTEGER NOT NULL,"
	"  committed INTEGER NOT NULL DEFAULT 0, round INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,"
	"  created_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '');"
	"CREATE TABLE cohort ("
	"  plant TEXT NOT NULL, job INTEGER NOT NULL REFERENCES job (id), PRIMARY KEY (plant, job)) WITHOUT ROWID;"
	"CREATE INDEX cohort_job ON cohort (job);"
	"CREATE TABLE round ("
	"  job INTEGER NOT NULL REFERENCES job (id), number INTEGER NOT NULL, phase TEXT NOT NULL, base BLOB NOT NULL,"
	"  base_size INTEGER NOT NULL, cohort BLOB NOT NULL, plants INTEGER NOT NULL, quorum INTEGER NOT NULL,"
	"  opened_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, closed_ms INTEGER NOT NULL DEFAULT 0, seal BLOB, model BLOB,"
	"  model_size INTEGER NOT NULL DEFAULT 0, bytes_up INTEGER NOT NULL DEFAULT 0, bytes_down INTEGER NOT NULL DEFAULT 0,"
	"  reason TEXT NOT NULL DEFAULT '', PRIMARY KEY (job, number)) WITHOUT ROWID;"
	"CREATE TABLE contribution ("
	"  job INTEGER NOT NULL, round INTEGER NOT NULL, plant TEXT NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,"
	"  samples INTEGER NOT NULL, norm REAL NOT NULL, time_ms INTEGER NOT NULL, metrics TEXT NOT NULL,"
	"  PRIMARY KEY (job, round, plant), FOREIGN KEY (job, round) REFERENCES round (job, number)) WITHOUT ROWID;"
	"CREATE TABLE report ("
	"  job INTEGER NOT NULL REFERENCES job (id), round INTEGER NOT NULL, plant TEXT NOT NULL, model BLOB NOT NULL,"
	"  taken INTEGER NOT NULL, metrics TEXT NOT NULL, time_ms INTEGER NOT NULL, PRIMARY KEY (job, round, plant)) WITHOUT ROWID;"
	"PRAGMA user_version = 1;",
	/* 2: updates that are made from an earlier round's base, and small ones that share a file */
	"ALTER TABLE contribution ADD COLUMN base_round INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE contribution ADD COLUMN place INTEGER NOT NULL DEFAULT -1;"
	"UPDATE contribution SET base_round = round;"
	"CREATE UNIQUE INDEX contribution_base ON contribution (job, base_round, plant);"
	"ALTER TABLE round ADD COLUMN goal INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE round ADD COLUMN grace_ms INTEGER NOT NULL DEFAULT 0;"
	"UPDATE round SET goal = plants;"
	"PRAGMA user_version = 2;",
	/* 3: which rounds is a model of? (retention) How often has a job ended? (one that is resumed ends again) */
	"CREATE INDEX round_base ON round (base);"
	"CREATE INDEX round_model ON round (model);"
	"CREATE INDEX job_source ON job (source);"
	"CREATE INDEX job_model ON job (model);"
	"ALTER TABLE job ADD COLUMN ends INTEGER NOT NULL DEFAULT 0;"
	"UPDATE job SET ends = 1 WHERE state <> 'running';"
	"PRAGMA user_version = 3;",
};
/* clang-format on */

enum { VERSION = sizeof versions / sizeof versions[0] };

enum err db_ask_number(struct db *db, const char *text, int64_t *ret_number)
{
	struct query *q = sql_query(db->sql, text);
	int64_t number = sql_next(q) ? sql_int(q, 0) : 0;
	TRY(sql_end(q));
	*ret_number = number;
	return ERR_OK;
}

static enum err migrate(struct db *db, const char *path)
{
	int64_t version;
	TRY(db_ask_number(db, "PRAGMA user_version", &version));
	if (version < 0 || version > VERSION)
		return err_set(ERR_CONFIG, "%s: written by a later release (table version %lld, this one knows %d)",
			       path, (long long)version, VERSION);
	while (version < VERSION) {
		TRY(sql_begin(db->sql));
		TRY(sql_end_transaction(db->sql, sql_run(db->sql, versions[version])));
		version++;
	}
	return ERR_OK;
}

enum err db_open(const char *path, struct db **ret_db)
{
	struct db *db = mem_new(sizeof *db);
	enum err err = sql_open(path, &db->sql);
	if (err == ERR_OK)
		err = migrate(db, path);
	if (err != ERR_OK) {
		db_close(db);
		return err;
	}
	*ret_db = db;
	return ERR_OK;
}

void db_close(struct db *db)
{
	if (db == NULL)
		return;
	sql_close(db->sql);
	free(db);
}

void db_bind_digest(struct query *q, const struct digest *d)
{
	sql_bind_bytes(q, digest_is_zero(d) ? bytes_of(NULL, 0) : bytes_of(d->b, sizeof d->b));
}

struct digest db_digest(struct query *q, int column)
{
	struct digest d = {{0}};
	struct bytes raw = sql_bytes(q, column);
	if (raw.n == sizeof d.b)
		memcpy(d.b, raw.p, sizeof d.b);
	else if (raw.n != 0)
		sql_spoil(q, "a digest of %zu bytes", raw.n);
	return d;
}

enum role db_role(struct query *q, int column)
{
	enum role role = ROLE_NONE;
	if (role_parse(sql_text(q, column), &role) != ERR_OK)
		sql_spoil(q, "'%.40s' is not a role", sql_text(q, column));
	return role;
}

void db_text(struct query *q, int column, char *out, size_t size)
{
	const char *text = sql_text(q, column);
	size_t n = strlen(text);
	if (n >= size) {
		sql_spoil(q, "a text of %zu bytes where at most %zu fit", n, size - 1);
		n = 0;
	}
	memcpy(out, text, n);
	out[n] = '\0';
}

void db_show_reason(const char *reason, char out[WIRE_REASON_SIZE])
{
	size_t left = strlen(reason), n = 0;
	while (left > 0) {
		size_t k = text_utf8_next(reason, left);
		bool plain = k > 1 || (k == 1 && (unsigned char)*reason >= 0x20 && *reason != 0x7f);
		k = k > 0 ? k : 1;
		if (n + k >= WIRE_REASON_SIZE)
			break;
		memcpy(out + n, plain ? reason : "?", plain ? k : 1);
		n += plain ? k : 1;
		reason += k;
		left -= k;
	}
	out[n] = '\0';
}

uint64_t db_count(struct query *q, int column, uint64_t max)
{
	int64_t v = sql_int(q, column);
	if (v >= 0 && (uint64_t)v <= max)
		return (uint64_t)v;
	sql_spoil(q, "%lld is out of range", (long long)v);
	return 0;
}

void db_buf(struct query *q, int column, size_t max, struct buf *ret_content)
{
	struct bytes raw = sql_bytes(q, column);
	buf_init(ret_content, max);
	if (raw.n > 0 && buf_append(ret_content, raw.p, raw.n) != ERR_OK)
		sql_spoil(q, "%zu bytes where at most %zu fit", raw.n, max);
}
