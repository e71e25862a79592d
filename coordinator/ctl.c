#include "coordinator/ctl.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- connection ---- */

static enum err find_credential(const char *dir, char out[PATH_SIZE])
{
	char path[PATH_SIZE];
	if (strlen(dir) > PATH_SIZE / 2)
		return err_set(ERR_LIMIT, "%.100s...: the path is too long", dir);
	path_join(out, dir, "operator");
	if (file_exists(path_join(path, out, "cert.pem")))
		return ERR_OK;
	snprintf(out, PATH_SIZE, "%s", dir);
	if (file_exists(path_join(path, dir, "cert.pem")))
		return ERR_OK;
	return err_set(ERR_NOT_FOUND,
		       "%s: neither a federation nor an operator's credential; name one with --dir or " CTL_DIRECTORY,
		       dir);
}

enum err ctl_open(const char *dir, struct ctl *ret_ctl)
{
	struct ctl c = {.client = NULL};
	char path[PATH_SIZE];
	if (dir == NULL)
		dir = getenv(CTL_DIRECTORY);
	if (dir == NULL || dir[0] == '\0')
		return err_set(ERR_USAGE, "--dir DIR is missing (or set " CTL_DIRECTORY ")");
	TRY(find_credential(dir, path));
	TRY(credential_load(path, clock_wall_ms(), &c.credential));
	if (c.credential.address == NULL) {
		credential_free(&c.credential);
		return err_set(ERR_CONFIG, "%s: peer.yaml has no address", path);
	}
	struct rpc_client_config config = {
		.address = c.credential.address,
		.ca_pem = buf_bytes(&c.credential.ca_pem),
		.key_pem = buf_bytes(&c.credential.key_pem),
		.cert_pem = buf_bytes(&c.credential.cert_pem),
		.federation = c.credential.id.federation,
	};
	rpc_init();
	enum err err = rpc_client_new(&config, &c.client);
	if (err != ERR_OK) {
		ctl_close(&c);
		return err;
	}
	*ret_ctl = c;
	return ERR_OK;
}

void ctl_close(struct ctl *c)
{
	if (c->credential.dir == NULL)
		return;
	rpc_client_free(c->client);
	credential_free(&c->credential);
	rpc_shutdown();
	*c = (struct ctl){.client = NULL};
}

enum err ctl_call(struct ctl *c, enum method_id method, const struct buf *request, struct buf *ret_reply)
{
	return rpc_client_call(c->client, method, buf_bytes(request), 0, ret_reply);
}

/* ---- asking ---- */

static enum err list_jobs(struct ctl *c, uint64_t id, struct wire_jobs *ret_jobs)
{
	struct wire_job_ref ref = {.job = id};
	struct buf request, reply = {0};
	buf_init(&request, 64);
	enum err err = wire_job_ref_pack(&ref, &request);
	if (err == ERR_OK)
		err = ctl_call(c, METHOD_LIST_JOBS, &request, &reply);
	if (err == ERR_OK)
		err = wire_jobs_unpack(buf_bytes(&reply), ret_jobs);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err find_by_name(struct ctl *c, const char *name, uint64_t *ret_id)
{
	struct wire_jobs all;
	uint64_t id = 0;
	TRY(list_jobs(c, 0, &all));
	for (size_t i = 0; i < all.n; i++) {
		if (strcmp(all.v[i].name, name) == 0 && all.v[i].job > id)
			id = all.v[i].job;
	}
	wire_jobs_free(&all);
	if (id == 0)
		return err_set(ERR_NOT_FOUND, "there is no job '%.63s'; see hansactl job list", name);
	*ret_id = id;
	return ERR_OK;
}

enum err ctl_find_job(struct ctl *c, const char *word, struct wire_jobs *ret_job)
{
	int64_t number;
	uint64_t id = 0;
	struct wire_jobs one;
	if (text_to_int(word, &number) && number > 0)
		id = (uint64_t)number;
	else
		TRY(find_by_name(c, word, &id));
	TRY(list_jobs(c, id, &one));
	if (one.n != 1 || one.v[0].job != id) {
		wire_jobs_free(&one);
		return err_set(ERR_MALFORMED, "the coordinator's answer is about other jobs than job %" PRIu64, id);
	}
	*ret_job = one;
	return ERR_OK;
}

enum err ctl_watch(struct ctl *c, uint64_t job, uint64_t seen, int64_t deadline_ms, struct wire_watch_reply *ret_reply)
{
	struct wire_watch_request asked = {.job = job, .seen = seen};
	struct buf request, reply = {0};
	buf_init(&request, 64);
	enum err err = wire_watch_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = rpc_client_call(c->client, METHOD_WATCH, buf_bytes(&request), deadline_ms, &reply);
	if (err == ERR_OK)
		err = wire_watch_reply_unpack(buf_bytes(&reply), ret_reply);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

enum err ctl_list_rounds(struct ctl *c, uint64_t job, struct wire_rounds *ret_rounds)
{
	struct wire_job_ref ref = {.job = job};
	struct buf request, reply = {0};
	buf_init(&request, 64);
	enum err err = wire_job_ref_pack(&ref, &request);
	if (err == ERR_OK)
		err = ctl_call(c, METHOD_LIST_ROUNDS, &request, &reply);
	if (err == ERR_OK)
		err = wire_rounds_unpack(buf_bytes(&reply), ret_rounds);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

struct piece_source {
	const struct file_map *map;
	size_t at;
};

/* Pages that have been sent are not needed again. */
static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct piece_source *s = arg;
	size_t left = s->map->content.n - s->at;
	if (s->at >= 2 * (size_t)WIRE_CHUNK_SIZE)
		file_map_drop(s->map, s->at - 2 * (size_t)WIRE_CHUNK_SIZE, WIRE_CHUNK_SIZE);
	if (left == 0)
		return ERR_END;
	size_t n = left < WIRE_CHUNK_SIZE ? left : WIRE_CHUNK_SIZE;
	*ret_piece = bytes_of(s->map->content.p + s->at, n);
	s->at += n;
	return ERR_OK;
}

enum err ctl_publish(struct ctl *c, const char *path, struct wire_publish_reply *ret_reply)
{
	struct file_map map;
	struct buf reply = {0};
	struct wire_publish_reply given;
	TRY(file_map(path, &map));
	struct piece_source source = {.map = &map};
	struct wire_head head = {.size = map.content.n, .digest = digest_of(map.content)};
	enum err err = rpc_client_upload(c->client, METHOD_PUBLISH, &head, next_piece, &source, &reply);
	if (err == ERR_OK)
		err = wire_publish_reply_unpack(buf_bytes(&reply), &given);
	if (err == ERR_OK && !digest_equal(&given.digest, &head.digest))
		err = err_set(ERR_CORRUPT, "the coordinator stored other bytes than %s", path);
	buf_deinit(&reply);
	file_unmap(&map);
	if (err != ERR_OK)
		return err_add(err, "publishing %s", path);
	*ret_reply = given;
	return ERR_OK;
}

/* ---- showing ---- */

const char *ctl_time(uint64_t ms, char out[CTL_TEXT_SIZE])
{
	char text[CLOCK_TEXT_SIZE];
	if (ms == 0 || ms > INT64_MAX)
		snprintf(out, CTL_TEXT_SIZE, "-");
	else
		snprintf(out, CTL_TEXT_SIZE, "%.19sZ", clock_format((int64_t)ms, text));
	return out;
}

const char *ctl_short(const struct digest *d, char out[CTL_TEXT_SIZE])
{
	char text[DIGEST_TEXT_SIZE];
	snprintf(out, CTL_TEXT_SIZE, "%.12s", digest_is_zero(d) ? "-" : digest_format(d, text));
	return out;
}

const char *ctl_count(const struct wire_round *r, char out[CTL_TEXT_SIZE])
{
	/* Older coordinators do not tell a goal. */
	uint32_t goal = r->goal != 0 ? r->goal : r->cohort;
	int n = snprintf(out, CTL_TEXT_SIZE, "%lu of %lu", (unsigned long)r->accepted, (unsigned long)goal);
	if (goal != r->cohort)
		snprintf(out + n, CTL_TEXT_SIZE - (size_t)n, ", %lu asked", (unsigned long)r->cohort);
	return out;
}

struct json *ctl_time_json(uint64_t ms)
{
	char text[CLOCK_TEXT_SIZE];
	return json_str(ms == 0 || ms > INT64_MAX ? NULL : clock_format((int64_t)ms, text));
}

static struct json *digest_json(const struct digest *d)
{
	char text[DIGEST_TEXT_SIZE];
	return json_str(digest_is_zero(d) ? NULL : digest_format(d, text));
}

struct json *ctl_job_json(const struct wire_job *j)
{
	struct json *v = json_map(), *config = NULL;
	json_put(v, "job", json_int((int64_t)j->job));
	json_put(v, "name", json_str(j->name));
	json_put(v, "state", json_str(wire_job_state_name(j->state)));
	json_put(v, "round", json_int(j->round));
	json_put(v, "rounds", json_int(j->rounds));
	json_put(v, "source_sha256", digest_json(&j->source));
	json_put(v, "model_sha256", digest_json(&j->model));
	json_put(v, "model_bytes", json_int((int64_t)j->model_size));
	json_put(v, "created", ctl_time_json(j->created_ms));
	json_put(v, "ended", ctl_time_json(j->ended_ms));
	json_put(v, "reason", json_str(j->reason[0] != '\0' ? j->reason : NULL));
	json_put(v, "trouble", json_str(j->trouble[0] != '\0' ? j->trouble : NULL));
	if (j->config.n > 0 && json_parse(buf_bytes(&j->config), &config) == ERR_OK)
		json_put(v, "config", config);
	return v;
}

static struct json *metrics_json(const struct wire_metrics *metrics)
{
	struct json *v = json_map();
	for (size_t i = 0; i < metrics->n; i++)
		json_put(v, metrics->v[i].name, json_num(metrics->v[i].value));
	return v;
}

static struct json *report_json(const struct wire_plant_report *r)
{
	struct json *v = json_map();
	json_put(v, "plant", json_str(r->plant));
	json_put(v, "model_sha256", digest_json(&r->model));
	json_put(v, "taken", json_bool(r->taken));
	json_put(v, "time", ctl_time_json(r->time_ms));
	json_put(v, "metrics", metrics_json(&r->metrics));
	return v;
}

static struct json *contribution_json(const struct wire_contribution *c, uint32_t round)
{
	struct json *v = json_map();
	json_put(v, "plant", json_str(c->plant));
	json_put(v, "sha256", digest_json(&c->digest));
	json_put(v, "samples", json_int((int64_t)c->samples));
	json_put(v, "norm", json_num(c->norm));
	json_put(v, "base_round", json_int(c->base_round != 0 ? c->base_round : round));
	json_put(v, "time", ctl_time_json(c->time_ms));
	json_put(v, "metrics", metrics_json(&c->metrics));
	return v;
}

struct json *ctl_round_json(const struct wire_round *r)
{
	struct json *v = json_map(), *list = json_list(), *reports = json_list();
	for (size_t i = 0; i < r->n_contributions; i++)
		json_push(list, contribution_json(&r->contributions[i], r->round));
	for (size_t i = 0; i < r->n_reports; i++)
		json_push(reports, report_json(&r->reports[i]));
	json_put(v, "round", json_int(r->round));
	json_put(v, "phase", json_str(r->phase));
	json_put(v, "cohort", json_int(r->cohort));
	json_put(v, "goal", json_int(r->goal != 0 ? r->goal : r->cohort));
	json_put(v, "accepted", json_int(r->accepted));
	json_put(v, "opened", ctl_time_json(r->opened_ms));
	json_put(v, "deadline", ctl_time_json(r->deadline_ms));
	json_put(v, "closed", ctl_time_json(r->closed_ms));
	json_put(v, "base_sha256", digest_json(&r->base));
	json_put(v, "model_sha256", digest_json(&r->model));
	json_put(v, "bytes_up", json_int((int64_t)r->bytes_up));
	json_put(v, "bytes_down", json_int((int64_t)r->bytes_down));
	json_put(v, "reason", json_str(r->reason[0] != '\0' ? r->reason : NULL));
	json_put(v, "contributions", list);
	json_put(v, "reports", reports);
	return v;
}

enum err ctl_print_json(struct json *v)
{
	struct buf text;
	buf_init(&text, 64 << 20);
	enum err err = json_write(v, &text);
	if (err == ERR_OK)
		printf("%s\n", buf_str(&text));
	buf_deinit(&text);
	json_free(v);
	return err;
}

static bool metric_of(const struct wire_contribution *c, const char *metric, double *ret_value)
{
	for (size_t i = 0; i < c->metrics.n; i++) {
		if (strcmp(c->metrics.v[i].name, metric) == 0) {
			*ret_value = c->metrics.v[i].value;
			return true;
		}
	}
	return false;
}

bool ctl_round_mean(const struct wire_round *r, const char *metric, double *ret_mean)
{
	double sum = 0, weight = 0, value;
	for (size_t i = 0; i < r->n_contributions; i++) {
		const struct wire_contribution *c = &r->contributions[i];
		if (!metric_of(c, metric, &value))
			continue;
		sum += value * (double)c->samples;
		weight += (double)c->samples;
	}
	if (weight <= 0)
		return false;
	*ret_mean = sum / weight;
	return true;
}
