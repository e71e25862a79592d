/*
 * Every step is repeatable: training is a function of (job, round, base, data, what this plant's local tensors were
 * after an earlier round), so a plant that dies anywhere in a round starts the round again and sends the same update,
 * which the coordinator recognises by its digest. Only the end of a job is remembered (progress.json), after the final
 * model has been judged.
 *
 * What goes wrong in a job is that job's affair: the plant says so once, passes over the round (or the whole job, when
 * it cannot even be opened) and goes on. Only what concerns the plant as a whole ends the program: the user, its own
 * disk, and the coordinator's word, when it is asked for a task, that this plant is not one of its plants.
 */
#include "client/participant.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/table.h"
#include "client/assignment.h"
#include "client/learn.h"
#include "client/parts.h"
#include "client/progress.h"
#include "client/received.h"
#include "client/report.h"
#include "client/share.h"
#include "update/update.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAP_MS = 2000 };

struct participant {
	const struct plant_config *config;
	struct session *session;
	char name[IDENTITY_PART_SIZE];
	bool json;
	char received[PATH_SIZE];
	struct received_needs needs;
	struct progress progress;
	struct parts parts;
	char missed[WIRE_NAME_SIZE + PART_WHY_SIZE + 80]; /* see participant_missed() */
	struct assignment *job;                           /* NULL: none yet */
};

/* An ERR_IO is always of this end's disk: the session keeps the coordinator's to itself. */
static bool is_final(enum err err)
{
	return err == ERR_IO || err == ERR_CANCELLED;
}

/* ---- judging models ---- */

/* Before anything is fetched for the task, so that what earlier tasks left does not pile up, whatever became of them. */
static enum err make_room(struct participant *p, const struct wire_task *task)
{
	received_need(&p->needs, task->job, &task->source, &task->base);
	enum err err = received_keep(p->received, &p->needs);
	return err == ERR_OK ? ERR_OK : err_set(ERR_IO, "%s", err_text());
}

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

static enum err get_base(struct participant *p, const struct wire_task *task, struct model **ret_base)
{
	if (task->base_content.n > 0)
		TRY(received_put(p->received, &task->base, buf_bytes(&task->base_content)));
	return received_get(p->received, p->session, &task->base, task->base_size, ret_base);
}

static enum err send_report(struct participant *p, const struct wire_task *task, const struct digest *model,
			    const struct metrics *score, bool taken);

static enum err offer(struct participant *p, struct model *m, const struct inuse_file *file, const char *origin,
		      bool *ret_taken, struct metrics *ret_score)
{
	char text[REPORT_TEXT_SIZE];
	TRY(inuse_offer(p->job->inuse, m, file, origin, ret_taken, ret_score));
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
	const struct inuse_file file = {received_path(p->received, &task->base, received), task->base};
	/* With this plant's own tensors in it, it is another model than the file's. */
	TRY(offer(p, global, j->local.any ? NULL : &file, origin, &taken, &score));
	TRY(file_link(received, path_join(path, p->config->state, "global.safetensors")));
	j->judged = task->base;
	return send_report(p, task, &task->base, &score, taken);
}

static enum err send_report(struct participant *p, const struct wire_task *task, const struct digest *model,
			    const struct metrics *score, bool taken)
{
	struct wire_report report = {.job = task->job, .round = task->round, .model = *model, .taken = taken};
	struct buf packed, reply = {0};
	share_metrics(p->config, &report.metrics, "heldout_", score);
	if (report.metrics.n == 0) /* whether it was taken is a word about the data, too */
		return ERR_OK;
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
	share_metric(p->config, &head.update.metrics, "train_", "loss", result->loss);
	struct buf reply = {0};
	struct wire_receipt receipt = {0};
	enum err err = session_upload(p->session, METHOD_UPLOAD_UPDATE, &head, content, &reply);
	if (err == ERR_OK)
		err = wire_receipt_unpack(buf_bytes(&reply), &receipt);
	if (err == ERR_OK &&
	    (receipt.job != task->job || receipt.round != task->round || !digest_equal(&receipt.digest, &head.digest)))
		err = err_set(ERR_MALFORMED, "the coordinator acknowledges another update than was sent");
	if (err == ERR_OK) {
		parts_sent(&p->parts, task->job);
		log_info("join", "%s: round %" PRIu32 "/%" PRIu32 ": sent %zu bytes, norm %.4g, training loss %.4f%s",
			 j->name, task->round, task->rounds, content.n, norm, result->loss,
			 receipt.repeated ? " (had been accepted before)" : "");
	}
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

struct round_progress {
	char label[WIRE_NAME_SIZE + 40];
	int64_t until_ms; /* monotonic; 0: no end */
};

/* Nobody takes an update that is later than this. */
static enum err round_progress(void *arg, const struct train_progress *t)
{
	struct round_progress *r = arg;
	TRY(learn_progress(r->label, t));
	if (r->until_ms == 0 || t->epoch == t->epochs || clock_monotonic_ms() < r->until_ms)
		return ERR_OK;
	progress("%s", "");
	return err_set(ERR_STALE, "its deadline passed in epoch %zu of %zu", t->epoch, t->epochs);
}

/*
 * The time from which on an update of this round counts nowhere, as far as a plant can tell. Where late ones are carried, that is when
 * late_max further rounds have passed, of which this plant knows no more than that none lasts longer than its deadline.
 */
static int64_t last_moment(const struct job_config *c, int64_t until_ms)
{
	return until_ms != 0 && c->late == JOB_LATE_CARRY ? until_ms + c->late_max * c->deadline : until_ms;
}

static enum err train_locally(struct participant *p, const struct wire_task *task, struct model *local,
			      const float *base, int64_t until_ms, struct train_result *ret_result)
{
	struct assignment *j = p->job;
	struct round_progress progress = {.until_ms = last_moment(&j->config, until_ms)};
	snprintf(progress.label, sizeof progress.label, "%s round %" PRIu32 "/%" PRIu32, j->name, task->round,
		 task->rounds);
	struct train_job job = {
		.model = local,
		.train = j->split.train,
		.config = &j->config.train,
		.source = j->source,
		.head_is_new = j->head_is_new,
		.base = base,
		.seed = job_plant_seed(&j->config, task->round, p->name),
		.progress = round_progress,
		.progress_arg = &progress,
	};
	TRY(train_run(&job, ret_result));
	return local_keep(&j->local, task->round, local);
}

static enum err take_round(struct participant *p, const struct wire_task *task, int64_t until_ms)
{
	struct model *base = NULL, *local = NULL;
	struct assignment *j = p->job;
	struct train_result result;
	int64_t start = clock_monotonic_ms();
	enum err err = get_base(p, task, &base);
	if (err == ERR_OK)
		err = manifest_check_model(j->manifest, base);
	if (err == ERR_OK)
		err = local_restore(&j->local, task->round, j->manifest, base);
	if (err == ERR_OK)
		err = judge_global(p, task, base, task->round - 1);
	if (err == ERR_OK) {
		local = model_dup(base);
		err = train_locally(p, task, local, base->theta, until_ms, &result);
	}
	if (err == ERR_OK)
		err = send_update(p, task, base, local, &result);
	if (err == ERR_OK)
		err = local_trim(&j->local, task->round);
	if (err == ERR_OK)
		err = progress_write(&p->progress, p->name, p->session, NULL);
	if (err == ERR_OK)
		print_round(p, task, &result, (double)(clock_monotonic_ms() - start) / 1000);
	model_free(base);
	model_free(local);
	return err;
}

/* Say once what is in the way; the coordinator is asked not to give this again. */
static void pass_over(struct participant *p, const struct wire_task *task, uint32_t round)
{
	if (round == 0)
		log_warn("join",
			 "%s: this plant takes no part in the job: %s. Mend that (data: in the plant's configuration, "
			 "or the job) and start this program again; until then it goes on with other jobs",
			 task->job_name, err_text());
	else
		log_warn("join", "%s: round %" PRIu32 " is passed over: %s", task->job_name, round, err_text());
	parts_pass(&p->parts, task->job, round, err_text());
}

/* An operator has resumed a job whose end was seen here: it has not ended after all. */
static enum err unfinish(struct participant *p, const struct wire_task *task)
{
	if (task->job == 0 || task->job > p->progress.finished_job)
		return ERR_OK;
	/* Its next end is one more than those that a newer coordinator counts. */
	bool counted = task->job_ends != 0;
	if (counted && task->job == p->progress.finished_job && task->job_ends == p->progress.finished_ends)
		return ERR_OK;
	log_info("join", "%s: has been resumed", task->job_name);
	p->progress.finished_job = counted ? task->job : task->job - 1;
	p->progress.finished_ends = task->job_ends;
	return progress_write(&p->progress, p->name, p->session, NULL);
}

static enum err train_task(struct participant *p, const struct wire_task *task)
{
	TRY(unfinish(p, task));
	int64_t until_ms = task->deadline_in_ms == 0 || task->deadline_in_ms > INT32_MAX
				   ? 0
				   : clock_monotonic_ms() + (int64_t)task->deadline_in_ms;
	if (parts_passed(&p->parts, task->job, task->round)) {
		/* A coordinator that does not know what it was asked, or another job was passed over since. */
		parts_again(&p->parts, task->job);
		return session_nap(NAP_MS);
	}
	TRY(make_room(p, task));
	enum err err = ensure_job(p, task);
	bool opened = err == ERR_OK;
	if (opened)
		err = take_round(p, task, until_ms);
	if (err == ERR_OK || is_final(err))
		return err;
	if (opened && err == ERR_STALE)
		log_warn("join", "%s: round %" PRIu32 " closed without our update: %s", task->job_name, task->round,
			 err_text());
	else if (opened && err == ERR_DUPLICATE)
		/* This plant's data or library changed between two tries of the same round: the first update counts. */
		log_warn("join", "%s: round %" PRIu32 ": %s", task->job_name, task->round, err_text());
	else
		pass_over(p, task, opened ? task->round : 0);
	return ERR_OK;
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
		err = offer(p, mine, NULL, origin, &taken, &score);
	model_free(mine);
	return err;
}

static enum err write_end(struct participant *p, const struct wire_task *task, const struct assignment *j)
{
	char text[DIGEST_TEXT_SIZE];
	struct json *last = json_map();
	json_put(last, "event", json_str("finished"));
	json_put(last, "job", json_str(task->job_name));
	json_put(last, "state", json_str(wire_job_state_name(task->job_state)));
	json_put(last, "rounds", json_int(task->round));
	json_put(last, "model_sha256", json_str(digest_format(&task->base, text)));
	if (j != NULL) {
		json_put(last, "heldout", report_metrics(inuse_score(j->inuse)));
		json_put(last, "in_use", json_str(inuse_origin(j->inuse)));
		json_put(last, "seconds", json_num((double)(clock_monotonic_ms() - j->started_ms) / 1000));
	}
	if (p->missed[0] != '\0')
		json_put(last, "missed", json_str(p->missed));
	if (p->json)
		report_print(last);
	return progress_write(&p->progress, p->name, p->session, last);
}

static enum err judge_end(struct participant *p, const struct wire_task *task)
{
	struct model *global = NULL;
	struct assignment *j = p->job;
	enum err err = get_base(p, task, &global);
	if (err == ERR_OK)
		err = manifest_check_model(j->manifest, global);
	if (err == ERR_OK)
		err = local_restore(&j->local, task->round + 1, j->manifest, global);
	if (err == ERR_OK)
		err = judge_global(p, task, global, task->round);
	if (err == ERR_OK)
		err = personalise(p, task, global);
	model_free(global);
	return err;
}

static enum err finish_job(struct participant *p, const struct wire_task *task)
{
	const char *why = NULL;
	TRY(make_room(p, task));
	enum err err = ensure_job(p, task);
	if (err == ERR_OK)
		err = judge_end(p, task);
	if (is_final(err))
		return err;
	if (err != ERR_OK) {
		log_warn("join", "%s: %s after round %" PRIu32 "; its last model is not looked at: %s", task->job_name,
			 wire_job_state_name(task->job_state), task->round, err_text());
		why = err_text();
	}
	if (parts_missed(&p->parts, task->job) != NULL)
		why = parts_missed(&p->parts, task->job);
	p->missed[0] = '\0';
	if (why != NULL)
		snprintf(p->missed, sizeof p->missed, "this plant took no part in job %s: %.*s", task->job_name,
			 (int)PART_WHY_SIZE, why);
	p->progress.finished_job = task->job;
	p->progress.finished_ends = task->job_ends;
	TRY(write_end(p, task, err == ERR_OK ? p->job : NULL));
	if (err == ERR_OK)
		log_info("join", "%s: %s after round %" PRIu32 "; in use: %s", task->job_name,
			 wire_job_state_name(task->job_state), task->round, inuse_origin(p->job->inuse));
	parts_end(&p->parts, task->job);
	received_done(&p->needs, task->job);
	return local_end(p->config->state, task->job, task->job_state == WIRE_JOB_DONE);
}

/* ---- the loop ---- */

static enum err next_task(struct participant *p, struct wire_task *ret_task)
{
	struct wire_task_request request = {.finished_job = p->progress.finished_job,
					    .finished_ends = (uint32_t)p->progress.finished_ends,
					    .software = "hansa " HANSA_VERSION};
	struct buf packed, reply = {0};
	buf_init(&packed, 1024);
	parts_last(&p->parts, &request.skip_job, &request.skip_round);
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
	progress_read(&p->progress, config->state);
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

const char *participant_missed(const struct participant *p)
{
	return p->missed[0] != '\0' ? p->missed : NULL;
}

enum err participant_step(struct participant *p, bool *ret_job_ended)
{
	struct wire_task task = {0};
	enum err err = next_task(p, &task);
	bool ended = false;
	if (err == ERR_OK && task.kind == WIRE_TASK_TRAIN) {
		err = train_task(p, &task);
	} else if (err == ERR_OK && task.kind == WIRE_TASK_FINISHED) {
		err = finish_job(p, &task);
		mem_give_back(); /* the next job may be days away */
		ended = true;
	} else if (err == ERR_OK) {
		err = session_nap(task.wait_ms < 60000 ? task.wait_ms : 60000);
	} else if (!is_final(err) && err != ERR_UNAUTHENTIC && err != ERR_DENIED) {
		/* The coordinator says something that this program does not understand; it may be mended there. */
		log_warn("join", "asking for a task: %s; asking again in %d s", err_text(), NAP_MS / 1000);
		err = session_nap(NAP_MS);
	}
	wire_task_free(&task);
	TRY(err);
	*ret_job_ended = ended;
	return ERR_OK;
}
