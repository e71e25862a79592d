/*
 * Every step is repeatable: training is a function of (job, round, base, data), so a plant that dies anywhere in a
 * round starts the round again and sends the same update, which the coordinator recognises by its digest. Only the end
 * of a job is remembered (progress.json), after the final model has been judged.
 */
#include "client/participant.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "client/assignment.h"
#include "client/learn.h"
#include "client/received.h"
#include "client/report.h"
#include "update/update.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { RECORD_MAX = 64 << 10 };

struct participant {
	const struct plant_config *config;
	struct session *session;
	char name[IDENTITY_PART_SIZE];
	bool json;
	char received[PATH_SIZE];
	uint64_t finished_job;
	uint64_t sent_before, received_before; /* bytes by earlier runs, from progress.json */
	struct assignment *job;                /* NULL: none yet */
};

/* ---- what outlives a restart ---- */

static void read_progress(struct participant *p)
{
	char path[PATH_SIZE];
	struct buf text;
	struct json *v;
	int64_t value;
	if (file_read(path_join(path, p->config->state, "progress.json"), RECORD_MAX, &text) != ERR_OK)
		return;
	if (json_parse(buf_bytes(&text), &v) == ERR_OK) {
		if (json_get_int(json_get(v, "finished_job"), &value) && value > 0)
			p->finished_job = (uint64_t)value;
		if (json_get_int(json_get(v, "bytes_up"), &value) && value > 0)
			p->sent_before = (uint64_t)value;
		if (json_get_int(json_get(v, "bytes_down"), &value) && value > 0)
			p->received_before = (uint64_t)value;
		json_free(v);
	} else {
		log_warn("join", "%s: not readable (%s); starting a new one", path, err_text());
	}
	buf_deinit(&text);
}

/* `last` (may be NULL) is what happened last; taken. */
static enum err write_progress(struct participant *p, struct json *last)
{
	char path[PATH_SIZE];
	uint64_t sent, received;
	struct buf out;
	session_get_bytes(p->session, &sent, &received);
	struct json *v = json_map();
	json_put(v, "plant", json_str(p->name));
	json_put(v, "finished_job", json_int((int64_t)p->finished_job));
	json_put(v, "bytes_up", json_int((int64_t)(p->sent_before + sent)));
	json_put(v, "bytes_down", json_int((int64_t)(p->received_before + received)));
	if (last != NULL)
		json_put(v, "last", last);
	buf_init(&out, RECORD_MAX);
	enum err err = json_write_pretty(v, &out);
	if (err == ERR_OK)
		err = file_replace(path_join(path, p->config->state, "progress.json"), buf_bytes(&out), 0600);
	buf_deinit(&out);
	json_free(v);
	return err;
}

/* ---- judging models ---- */

static enum err ensure_job(struct participant *p, const struct wire_task *task)
{
	char path[PATH_SIZE];
	if (p->job != NULL && p->job->job == task->job)
		return assignment_check(p->job, task);
	assignment_close(p->job);
	p->job = NULL;
	TRY(received_get(p->received, p->session, &task->source, task->source_size, NULL));
	return assignment_open(p->config, task, received_path(p->received, &task->source, path), &p->job);
}

static enum err send_report(struct participant *p, const struct wire_task *task, const struct digest *model,
			    const struct metrics *score, bool taken);

static enum err offer(struct participant *p, struct model *m, const char *origin, bool *ret_taken,
		      struct metrics *ret_score)
{
	char text[REPORT_TEXT_SIZE];
	TRY(inuse_offer(p->job->inuse, m, origin, ret_taken, ret_score));
	log_info("join", "%s: held out %s; %s", origin, report_format(ret_score, text),
		 *ret_taken ? "taken into use" : "the model in use is better");
	return ERR_OK;
}

static enum err judge_global(struct participant *p, const struct wire_task *task, struct model *global, uint32_t round)
{
	struct assignment *j = p->job;
	char path[PATH_SIZE], received[PATH_SIZE], origin[WIRE_NAME_SIZE + 40];
	if (digest_equal(&j->judged, &task->base))
		return ERR_OK;
	snprintf(origin, sizeof origin, round == 0 ? "source of %s" : "%s after round %" PRIu32, j->name, round);
	struct metrics score;
	bool taken;
	TRY(offer(p, global, origin, &taken, &score));
	TRY(file_copy(received_path(p->received, &task->base, received),
		      path_join(path, p->config->state, "global.safetensors"), 0600));
	j->judged = task->base;
	return send_report(p, task, &task->base, &score, taken);
}

static void add_metric(const struct participant *p, struct wire_metrics *out, const char *name, const char *prefix,
		       double value)
{
	if (!plant_shares(p->config, name) || !(value - value == 0) || out->n == WIRE_METRICS_MAX)
		return;
	struct wire_metric *m = &out->v[out->n++];
	snprintf(m->name, sizeof m->name, "%s%s", prefix, name);
	m->value = value;
}

static void add_metrics(const struct participant *p, struct wire_metrics *out, const char *prefix,
			const struct metrics *m)
{
	if (m->n == 0)
		return;
	add_metric(p, out, "loss", prefix, m->loss);
	add_metric(p, out, "accuracy", prefix, m->accuracy);
	add_metric(p, out, "macro_f1", prefix, m->macro_f1);
	add_metric(p, out, "rmse", prefix, m->rmse);
}

static enum err send_report(struct participant *p, const struct wire_task *task, const struct digest *model,
			    const struct metrics *score, bool taken)
{
	struct wire_report report = {.job = task->job, .round = task->round, .model = *model, .taken = taken};
	struct buf packed, reply = {0};
	add_metrics(p, &report.metrics, "heldout_", score);
	buf_init(&packed, 64 << 10);
	enum err err = wire_report_pack(&report, &packed);
	if (err == ERR_OK)
		err = session_call(p->session, METHOD_REPORT, buf_bytes(&packed), &reply);
	if (err == ERR_STATE || err == ERR_STALE || err == ERR_NOT_FOUND)
		err = ERR_OK; /* the job went on without us: the report is no longer of interest */
	buf_deinit(&packed);
	buf_deinit(&reply);
	return err;
}

/* ---- a round ---- */

static enum err send_update(struct participant *p, const struct wire_task *task, const struct model *base,
			    const struct model *local, const struct train_result *result)
{
	const struct assignment *j = p->job;
	uint8_t *update = NULL;
	double norm;
	TRY(update_make(j->manifest, base->theta, local->theta, j->config.clip_norm, &update, &norm));
	struct bytes content = bytes_of(update, manifest_update_bytes(j->manifest));
	struct wire_head head = {
		.size = content.n,
		.digest = digest_of(content),
		.has_update = true,
		.update = {.job = task->job,
			   .round = task->round,
			   .base = task->base,
			   .manifest = j->manifest->digest,
			   .samples = result->samples},
	};
	add_metric(p, &head.update.metrics, "loss", "train_", result->loss);
	struct buf reply = {0};
	struct wire_receipt receipt = {0};
	enum err err = session_upload(p->session, METHOD_UPLOAD_UPDATE, &head, content, &reply);
	if (err == ERR_OK)
		err = wire_receipt_unpack(buf_bytes(&reply), &receipt);
	if (err == ERR_OK &&
	    (receipt.job != task->job || receipt.round != task->round || !digest_equal(&receipt.digest, &head.digest)))
		err = err_set(ERR_UNAUTHENTIC, "the receipt is for another update");
	if (err == ERR_OK)
		log_info("join", "%s: round %" PRIu32 "/%" PRIu32 ": sent %zu bytes, norm %.4g, training loss %.4f%s",
			 j->name, task->round, task->rounds, content.n, norm, result->loss,
			 receipt.repeated ? " (had been accepted before)" : "");
	buf_deinit(&reply);
	free(update);
	return err;
}

static void print_round(const struct participant *p, const struct wire_task *task, const struct train_result *result,
			double seconds)
{
	if (!p->json)
		return;
	struct json *v = json_map();
	json_put(v, "event", json_str("round"));
	json_put(v, "job", json_str(p->job->name));
	json_put(v, "round", json_int(task->round));
	json_put(v, "rounds", json_int(task->rounds));
	json_put(v, "train_loss", json_num(result->loss));
	json_put(v, "heldout", report_metrics(inuse_score(p->job->inuse)));
	json_put(v, "in_use", json_str(inuse_origin(p->job->inuse)));
	json_put(v, "seconds", json_num(seconds));
	report_print(v);
	json_free(v);
}

static enum err train_locally(struct participant *p, const struct wire_task *task, struct model *local,
			      const float *base, struct train_result *ret_result)
{
	struct assignment *j = p->job;
	char label[WIRE_NAME_SIZE + 40];
	snprintf(label, sizeof label, "%s round %" PRIu32 "/%" PRIu32, j->name, task->round, task->rounds);
	struct train_job job = {
		.model = local,
		.train = j->split.train,
		.config = &j->config.train,
		.source = j->source,
		.head_is_new = j->head_is_new,
		.base = base,
		.seed = job_plant_seed(&j->config, task->round, p->name),
		.progress = learn_progress,
		.progress_arg = label,
	};
	TRY(train_run(&job, ret_result));
	return assignment_keep_local(j, local);
}

static enum err take_round(struct participant *p, const struct wire_task *task)
{
	struct model *base = NULL, *local = NULL;
	struct train_result result;
	int64_t start = clock_monotonic_ms();
	TRY(ensure_job(p, task));
	enum err err = received_get(p->received, p->session, &task->base, task->base_size, &base);
	if (err == ERR_OK)
		err = manifest_check_model(p->job->manifest, base);
	if (err == ERR_OK)
		err = assignment_restore_local(p->job, base);
	if (err == ERR_OK)
		err = judge_global(p, task, base, task->round - 1);
	if (err == ERR_OK) {
		local = model_dup(base);
		err = train_locally(p, task, local, base->theta, &result);
	}
	if (err == ERR_OK)
		err = send_update(p, task, base, local, &result);
	if (err == ERR_OK)
		err = received_keep(p->received, &task->source, &task->base);
	if (err == ERR_OK)
		err = write_progress(p, NULL);
	if (err == ERR_OK)
		print_round(p, task, &result, (double)(clock_monotonic_ms() - start) / 1000);
	model_free(base);
	model_free(local);
	if (err == ERR_STALE) {
		log_warn("join", "%s: round %" PRIu32 " closed before our update arrived", task->job_name, task->round);
		err = ERR_OK;
	} else if (err == ERR_DUPLICATE) {
		/* This plant's data or library changed between two tries of the same round: the first update counts. */
		log_warn("join", "%s: round %" PRIu32 ": %s", task->job_name, task->round, err_text());
		err = ERR_OK;
	}
	return err;
}

/* ---- the end of a job ---- */

static enum err personalise(struct participant *p, const struct wire_task *task, const struct model *global)
{
	struct assignment *j = p->job;
	char label[WIRE_NAME_SIZE + 40], origin[WIRE_NAME_SIZE + 60];
	struct train_config config = job_personalise_train(&j->config);
	if (config.epochs == 0 || j->split.train->n == 0)
		return ERR_OK;
	struct model *mine = model_dup(global);
	struct train_result result;
	struct metrics score;
	bool taken;
	snprintf(label, sizeof label, "%s: personalising", j->name);
	snprintf(origin, sizeof origin, "%s after round %" PRIu32 ", personalised", j->name, task->round);
	struct train_job job = {
		.model = mine,
		.train = j->split.train,
		.heldout = j->split.heldout,
		.config = &config,
		.source = j->source,
		.head_is_new = j->head_is_new,
		.base = global->theta,
		.seed = job_plant_seed(&j->config, (uint32_t)j->config.rounds + 1, p->name),
		.keep_best = true,
		.progress = learn_progress,
		.progress_arg = label,
	};
	enum err err = train_run(&job, &result);
	/* Epoch 0 kept: personalising did not help, and the global model has been offered already. */
	if (err == ERR_OK && result.best_epoch > 0)
		err = offer(p, mine, origin, &taken, &score);
	model_free(mine);
	return err;
}

static enum err write_end(struct participant *p, const struct wire_task *task)
{
	const struct assignment *j = p->job;
	char text[DIGEST_TEXT_SIZE];
	struct json *last = json_map();
	json_put(last, "event", json_str("finished"));
	json_put(last, "job", json_str(j->name));
	json_put(last, "state", json_str(wire_job_state_name(task->job_state)));
	json_put(last, "rounds", json_int(task->round));
	json_put(last, "model_sha256", json_str(digest_format(&task->base, text)));
	json_put(last, "heldout", report_metrics(inuse_score(j->inuse)));
	json_put(last, "in_use", json_str(inuse_origin(j->inuse)));
	json_put(last, "seconds", json_num((double)(clock_monotonic_ms() - j->started_ms) / 1000));
	if (p->json)
		report_print(last);
	return write_progress(p, last);
}

static enum err finish_job(struct participant *p, const struct wire_task *task)
{
	struct model *global = NULL;
	TRY(ensure_job(p, task));
	enum err err = received_get(p->received, p->session, &task->base, task->base_size, &global);
	if (err == ERR_OK)
		err = manifest_check_model(p->job->manifest, global);
	if (err == ERR_OK)
		err = assignment_restore_local(p->job, global);
	if (err == ERR_OK)
		err = judge_global(p, task, global, task->round);
	if (err == ERR_OK)
		err = personalise(p, task, global);
	if (err == ERR_OK) {
		p->finished_job = task->job;
		err = write_end(p, task);
	}
	if (err == ERR_OK)
		log_info("join", "%s: %s after round %" PRIu32 "; in use: %s", task->job_name,
			 wire_job_state_name(task->job_state), task->round, inuse_origin(p->job->inuse));
	model_free(global);
	return err;
}

/* ---- the loop ---- */

static enum err next_task(struct participant *p, struct wire_task *ret_task)
{
	struct wire_task_request request = {.finished_job = p->finished_job, .software = "hansa " HANSA_VERSION};
	struct buf packed, reply = {0};
	buf_init(&packed, 1024);
	enum err err = wire_task_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = session_call(p->session, METHOD_NEXT_TASK, buf_bytes(&packed), &reply);
	if (err == ERR_OK)
		err = wire_task_unpack(buf_bytes(&reply), ret_task);
	buf_deinit(&packed);
	buf_deinit(&reply);
	return err;
}

enum err participant_open(const struct plant_config *config, struct session *session, const char *plant_name, bool json,
			  struct participant **ret_participant)
{
	TRY(dir_make(config->state, 0700));
	TRY(dir_lock(config->state));
	struct participant *p = mem_new(sizeof *p);
	p->config = config;
	p->session = session;
	p->json = json;
	snprintf(p->name, sizeof p->name, "%s", plant_name);
	enum err err = received_open(config->state, p->received);
	if (err != ERR_OK) {
		free(p);
		return err;
	}
	read_progress(p);
	*ret_participant = p;
	return ERR_OK;
}

void participant_close(struct participant *p)
{
	if (p == NULL)
		return;
	assignment_close(p->job);
	free(p);
}

enum err participant_step(struct participant *p, bool *ret_job_ended)
{
	struct wire_task task = {0};
	enum err err = next_task(p, &task);
	bool ended = false;
	if (err == ERR_OK && task.kind == WIRE_TASK_TRAIN) {
		err = take_round(p, &task);
	} else if (err == ERR_OK && task.kind == WIRE_TASK_FINISHED) {
		err = finish_job(p, &task);
		ended = true;
	} else if (err == ERR_OK) {
		clock_sleep_ms(task.wait_ms < 60000 ? task.wait_ms : 60000);
	}
	wire_task_free(&task);
	TRY(err);
	*ret_job_ended = ended;
	return ERR_OK;
}
