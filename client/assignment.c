#include "client/assignment.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "ml/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void assignment_close(struct assignment *a)
{
	if (a == NULL)
		return;
	inuse_close(a->inuse);
	if (a->has_split)
		reader_split_free(&a->split);
	if (a->has_config)
		config_free(job_wire_rows, &a->config);
	manifest_free(a->manifest);
	model_free(a->source);
	free(a);
}

enum err assignment_check(const struct assignment *a, const struct wire_task *task)
{
	struct digest theirs = digest_of(buf_bytes(&task->manifest));
	if (!digest_equal(&theirs, &a->manifest->digest))
		return err_set(ERR_DENIED,
			       "job %s: the coordinator's manifest differs from the one that follows from the job's "
			       "configuration; this plant sends nothing",
			       task->job_name);
	return ERR_OK;
}

static enum err load_source(struct assignment *a, const char *path)
{
	struct file_map map;
	struct safetensors *st = NULL;
	TRY(file_map(path, &map));
	enum err err = safetensors_parse(path, map.content, &st);
	if (err == ERR_OK)
		err = safetensors_model(st, path, &a->source);
	if (err == ERR_OK) {
		const char *head = safetensors_meta(st, "hansa.head");
		a->head_is_new = head != NULL && strcmp(head, "new") == 0;
	}
	safetensors_free(st);
	file_unmap(&map);
	return err;
}

static enum err open_all(struct assignment *a, const struct plant_config *plant, const struct wire_task *task,
			 const char *source_path)
{
	TRY(config_from_canonical(job_wire_rows, buf_bytes(&task->config), &a->config));
	a->has_config = true;
	TRY(job_check(&a->config));
	TRY(load_source(a, source_path));
	TRY(manifest_build(a->source, &a->config.train.freeze, &a->config.local, &a->manifest));
	local_init(&a->local, plant->state, task->job, &task->source, a->manifest);
	TRY(assignment_check(a, task));
	TRY(reader_load(&plant->data, a->source, &a->split));
	a->has_split = true;
	return inuse_open(plant->state, a->source, a->split.heldout, &a->inuse);
}

enum err assignment_open(const struct plant_config *plant, const struct wire_task *task, const char *source_path,
			 struct assignment **ret_assignment)
{
	struct assignment *a = mem_new(sizeof *a);
	a->job = task->job;
	a->started_ms = clock_monotonic_ms();
	snprintf(a->name, sizeof a->name, "%s", task->job_name);
	enum err err = open_all(a, plant, task, source_path);
	if (err != ERR_OK) {
		assignment_close(a);
		return err;
	}
	if (a->split.heldout->n == 0)
		log_warn("join",
			 "no held-out samples (see data.heldout): new models are taken into use without comparison");
	log_info("join", "job %s: %zu training and %zu held-out samples; %zu of %zu parameters travel", a->name,
		 a->split.train->n, a->split.heldout->n, a->manifest->n_travel, a->manifest->n_theta);
	*ret_assignment = a;
	return ERR_OK;
}
