/*
 * What an operator may do. Lists are cut to what fits into one reply, the newest first in line.
 */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/service.h"
#include "coordinator/trouble.h"
#include "ml/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	LIST_MAX = 5000,             /* jobs or rounds in one reply */
	DETAILS_BYTES = 1000 * 1000, /* what reasons, single updates and reports may take of it */
	CONTRIBUTION_SIZE = 160,     /* packed, or a report, without its metrics; more than it is */
	METRIC_SIZE = 80,
	FIELD_SIZE = 3, /* what stands before a text */
};

/* ---- members ---- */

enum err service_invite(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_invite_request asked;
	struct wire_invite_reply given;
	(void)peer;
	TRY(wire_invite_request_unpack(request, &asked));
	TRY(enrol_invite(s->enrol, asked.role, asked.name, asked.valid_ms, clock_wall_ms(), &given));
	return wire_invite_reply_pack(&given, reply);
}

enum err service_revoke(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_revoke_request asked;
	(void)peer, (void)reply;
	TRY(wire_revoke_request_unpack(request, &asked));
	enum err err = enrol_revoke(s->enrol, asked.role, asked.name, clock_wall_ms());
	char *text = mem_str(err_text());
	/* Also when that could not be written: the roster refuses it already. */
	if (asked.role == ROLE_PLANT && !registry_is_enrolled(s->federation->registry, ROLE_PLANT, asked.name))
		engine_revoked(s->engine, asked.name);
	err_set(err, "%s", text);
	free(text);
	return err;
}

enum err service_list_plants(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_members members;
	(void)peer, (void)request;
	TRY(registry_list(s->federation->registry, &members));
	enum err err = wire_members_pack(&members, reply);
	wire_members_free(&members);
	return err;
}

/* ---- models ---- */

/* Whether it can serve as a source is found out when a job wants it; here only that it is a model at all. */
static enum err check_model(const char *path)
{
	struct file_map map;
	struct safetensors *st;
	TRY(file_map(path, &map));
	enum err err = safetensors_parse("the model", map.content, &st);
	if (err == ERR_OK) {
		if (safetensors_meta(st, "hansa.model") == NULL)
			err = err_set(ERR_MALFORMED, "the file does not say what model it is (metadata hansa.model); "
						     "make it with hansa pretrain");
		safetensors_free(st);
	}
	file_unmap(&map);
	return err;
}

static const char publishing[] = "storing a model";

/* Published models stay for good, and a lab may publish: the disk keeps what the settings want for everything else. */
static enum err check_room(const struct service *s, uint64_t missing)
{
	uint64_t least = (uint64_t)s->federation->settings.disk_free_min, left;
	if (least == 0)
		return ERR_OK;
	TRY(trouble_hide_file(dir_free(s->federation->dir, &left), publishing, TROUBLE_STORE));
	if (left >= least && left - least >= missing)
		return ERR_OK;
	return err_set(ERR_UNAVAILABLE,
		       "the coordinator's disk has no room for the model: %" PRIu64 " bytes are free, %" PRIu64
		       " of it are still to come, and disk_free_min is %" PRIu64,
		       left, missing, least);
}

/* Its key may be revoked, and others may fill the disk meanwhile. */
static enum err may_go_on(const struct service *s, const struct peer *peer, uint64_t missing)
{
	TRY(registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms()));
	return check_room(s, missing);
}

static enum err receive(struct service *s, const struct peer *peer, struct rpc_stream *in, const struct wire_head *head,
			struct file *f)
{
	for (;;) {
		const struct bytes *pieces;
		size_t n;
		enum err err = rpc_stream_next(in, &pieces, &n);
		if (err == ERR_END)
			break;
		TRY(err);
		TRY(may_go_on(s, peer, head->size - file_offset(f)));
		for (size_t i = 0; i < n; i++) {
			if (pieces[i].n > head->size - file_offset(f))
				return err_set(ERR_LIMIT, "more bytes than the %" PRIu64 " that were announced",
					       head->size);
			TRY(trouble_hide_file(file_write(f, pieces[i].p, pieces[i].n), publishing, TROUBLE_STORE));
		}
	}
	if (file_offset(f) != head->size)
		return err_set(ERR_MALFORMED, "%" PRIu64 " bytes instead of the %" PRIu64 " that were announced",
			       file_offset(f), head->size);
	TRY(registry_check(s->federation->registry, &peer->id, &peer->key, clock_wall_ms()));
	return trouble_hide_file(file_sync(f), publishing, TROUBLE_STORE);
}

static enum err take_model(struct service *s, const struct peer *peer, struct rpc_stream *in,
			   const struct wire_head *head, const char *temp, struct wire_publish_reply *ret_reply)
{
	struct file *f;
	TRY(trouble_hide_file(file_create(temp, 0600, &f), publishing, TROUBLE_STORE));
	enum err err = receive(s, peer, in, head, f);
	file_close(f);
	TRY(err);
	TRY(trouble_hide_file(check_model(temp), publishing, TROUBLE_STORE));
	enum err adopted = store_adopt(s->federation->store, temp, &head->digest, &ret_reply->digest, &ret_reply->size);
	/* Our disk may be at fault as well; the peer finds out when it tries again. */
	if (adopted == ERR_CORRUPT)
		return err_set(ERR_MALFORMED, "the model's SHA-256 is not the one that was announced");
	return trouble_hide_file(adopted, publishing, TROUBLE_STORE);
}

enum err service_publish(void *ctx, const struct peer *peer, struct rpc_stream *in, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_head head;
	struct wire_publish_reply given;
	char name[64], temp[PATH_SIZE], text[DIGEST_TEXT_SIZE];
	TRY(rpc_stream_head(in, &head));
	if (head.has_update || head.offset != 0)
		return err_set(ERR_MALFORMED, "a model is published whole, from its first byte");
	if (head.size == 0 || head.size > (uint64_t)s->federation->settings.upload_bytes_max)
		return err_set(ERR_LIMIT,
			       "a model of %" PRIu64 " bytes; upload_bytes_max of this coordinator is %" PRId64,
			       head.size, s->federation->settings.upload_bytes_max);
	TRY(check_room(s, head.size));
	snprintf(name, sizeof name, "publish-%lu", atomic_fetch_add(&s->published, 1));
	store_temp_path(s->federation->store, name, temp);
	enum err err = take_model(s, peer, in, &head, temp, &given);
	if (err != ERR_OK) {
		char *why = mem_str(err_text());
		if (file_remove(temp) != ERR_OK)
			log_warn("store", "%s", err_text());
		err_set(err, "%s", why);
		free(why);
		return err;
	}
	log_info("store", "published model=%s bytes=%" PRIu64 " by=%s", digest_format(&given.digest, text), given.size,
		 peer->id.name);
	return wire_publish_reply_pack(&given, reply);
}

/* ---- jobs ---- */

enum err service_start_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_start_job asked;
	struct wire_job_ref given;
	(void)peer;
	TRY(wire_start_job_unpack(request, &asked));
	enum err err = engine_job_start(s->engine, &asked, &given.job);
	wire_start_job_free(&asked);
	TRY(err);
	return wire_job_ref_pack(&given, reply);
}

enum err service_stop_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_job_ref asked;
	(void)peer, (void)reply;
	TRY(wire_job_ref_unpack(request, &asked));
	return engine_job_stop(s->engine, asked.job);
}

enum err service_resume_job(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_job_ref asked;
	(void)peer, (void)reply;
	TRY(wire_job_ref_unpack(request, &asked));
	return engine_job_resume(s->engine, asked.job);
}

/* Is there room for so many bytes? Where there is not, there is none for what is older either. */
static bool take_room(size_t size, size_t *room)
{
	bool fits = size <= *room;
	*room = fits ? *room - size : 0;
	return fits;
}

static void make_room(char reason[WIRE_REASON_SIZE], size_t *room)
{
	size_t n = strlen(reason);
	if (!take_room(n > 0 ? n + FIELD_SIZE : 0, room))
		reason[0] = '\0';
}

/* One job, with its configuration. */
static enum err show_job(struct service *s, uint64_t id, struct buf *reply)
{
	struct job_row row;
	struct wire_job job;
	TRY(db_job_get(s->federation->db, id, &row));
	db_show_job(&row, &job);
	engine_trouble(s->engine, id, job.trouble);
	job.config = row.config; /* for packing only */
	struct wire_jobs list = {.n = 1, .v = &job};
	enum err err = wire_jobs_pack(&list, reply);
	job_row_deinit(&row);
	return err;
}

enum err service_list_jobs(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_job_ref asked;
	struct job_row *rows;
	size_t n;
	(void)peer;
	TRY(wire_job_ref_unpack(request, &asked));
	if (asked.job != 0)
		return show_job(s, asked.job, reply);
	TRY(db_job_list(s->federation->db, &rows, &n));
	size_t skip = n > LIST_MAX ? n - LIST_MAX : 0;
	struct wire_jobs list = {.n = n - skip, .v = mem_array(n - skip, sizeof *list.v)};
	size_t room = DETAILS_BYTES;
	for (size_t i = list.n; i-- > 0;) {
		db_show_job(&rows[skip + i], &list.v[i]);
		engine_trouble(s->engine, list.v[i].job, list.v[i].trouble);
		make_room(list.v[i].reason, &room);
	}
	enum err err = wire_jobs_pack(&list, reply);
	wire_jobs_free(&list);
	free(rows);
	return err;
}

/* ---- rounds ---- */

static enum err add_contributions(struct service *s, uint64_t job, struct wire_round *round, size_t *room)
{
	struct update_row *updates;
	size_t n, size = 0;
	TRY(db_update_list(s->federation->db, job, round->round, &updates, &n));
	for (size_t i = 0; i < n; i++)
		size += CONTRIBUTION_SIZE + updates[i].metrics.n * METRIC_SIZE;
	if (take_room(size, room)) {
		round->contributions = mem_array(n, sizeof *round->contributions);
		round->n_contributions = n;
	}
	for (size_t i = 0; i < round->n_contributions; i++) {
		const struct update_row *u = &updates[i];
		struct wire_contribution *c = &round->contributions[i];
		*c = (struct wire_contribution){.digest = u->digest,
						.samples = u->samples,
						.time_ms = (uint64_t)u->time_ms,
						.norm = u->norm,
						.base_round = u->base_round,
						.metrics = u->metrics};
		memcpy(c->plant, u->plant, sizeof c->plant);
	}
	free(updates);
	return ERR_OK;
}

static enum err add_reports(struct service *s, uint64_t job, struct wire_round *round, size_t *room)
{
	struct wire_plant_report *reports;
	size_t n, size = 0;
	TRY(db_report_list(s->federation->db, job, round->round, &reports, &n));
	for (size_t i = 0; i < n; i++)
		size += CONTRIBUTION_SIZE + reports[i].metrics.n * METRIC_SIZE;
	if (n > 0 && take_room(size, room)) {
		round->reports = reports;
		round->n_reports = n;
	} else {
		free(reports);
	}
	return ERR_OK;
}

static enum err add_details(struct service *s, uint64_t job, struct wire_round *round, size_t *room)
{
	make_room(round->reason, room);
	TRY(add_contributions(s, job, round, room));
	return add_reports(s, job, round, room);
}

enum err service_list_rounds(void *ctx, const struct peer *peer, struct bytes request, struct buf *reply)
{
	struct service *s = ctx;
	struct wire_job_ref asked;
	struct job_row job;
	struct round_row *rows;
	size_t n, room = DETAILS_BYTES;
	(void)peer;
	TRY(wire_job_ref_unpack(request, &asked));
	TRY(db_job_get(s->federation->db, asked.job, &job));
	job_row_deinit(&job);
	TRY(db_round_list(s->federation->db, asked.job, &rows, &n));
	size_t skip = n > LIST_MAX ? n - LIST_MAX : 0;
	struct wire_rounds list = {.n = n - skip, .v = mem_array(n - skip, sizeof *list.v)};
	for (size_t i = 0; i < list.n; i++)
		db_show_round(&rows[skip + i], &list.v[i]);
	enum err err = ERR_OK;
	for (size_t i = list.n; err == ERR_OK && i-- > 0;) {
		if (room > 0)
			err = add_details(s, asked.job, &list.v[i], &room);
		else
			list.v[i].reason[0] = '\0';
	}
	if (err == ERR_OK)
		err = wire_rounds_pack(&list, reply);
	wire_rounds_free(&list);
	free(rows);
	return err;
}

void service_watch(void *ctx, const struct peer *peer, struct bytes request, struct rpc_ticket *ticket)
{
	struct service *s = ctx;
	struct wire_watch_request asked;
	enum err err = wire_watch_request_unpack(request, &asked);
	if (err != ERR_OK)
		rpc_ticket_answer(ticket, err, bytes_of(NULL, 0));
	else
		engine_watch(s->engine, peer->id.name, &asked, service_answer, ticket);
}
