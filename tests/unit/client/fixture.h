/*
 * A plant whose program runs in this process, against the coordinator of coordinator.h: started, stopped, and started again in the same
 * folder.
 */
#ifndef HANSA_TEST_CLIENT_FIXTURE_H
#define HANSA_TEST_CLIENT_FIXTURE_H

#include "coordinator.h"

#include "client/participant.h"

#include <dirent.h>
#include <unistd.h>

static char dir[PATH_SIZE], state_dir[PATH_SIZE];
static struct coordinator coordinator;

/* One run of the program. */
struct plant {
	struct plant_config config;
	struct credential cred;
	char address[64];
	struct session *session;
	struct participant *participant;
};

#define JOB   "source: s\nname: j\nquorum: 1\nrounds: 3\n"
#define TRAIN "train: {epochs: 3, batch: 4, lr: 0.1}\n"

static inline void write_data(double scale)
{
	struct buf text;
	buf_init(&text, 1 << 16);
	assert_ok(buf_printf(&text, "a,b,class\n"));
	for (int i = 0; i < 40; i++)
		assert_ok(buf_printf(&text, "%g,%g,%s\n", scale * (i % 2 == 0 ? -1 - i * 0.01 : 1 + i * 0.01),
				     scale * (i % 7 - 3), i % 2 == 0 ? "neg" : "pos"));
	temp_write(dir, "data.csv", text.p, text.n);
	buf_deinit(&text);
}

/* A program that ends lets go of its lock; this one goes on. */
static inline void drop_locks(void)
{
	DIR *d = opendir("/proc/self/fd");
	assert_non_null(d);
	for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
		char target[PATH_SIZE], *lock = mem_printf("%s/.lock", state_dir);
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		target[n > 0 ? n : 0] = '\0';
		if (strncmp(target, lock, strlen(lock)) == 0)
			close(atoi(e->d_name));
		free(lock);
	}
	closedir(d);
}

static inline void plant_stop(struct plant *p)
{
	participant_close(p->participant);
	session_close(p->session);
	plant_free(&p->config);
	drop_locks();
}

/* A start that may fail; nothing of it is left then. `more`: of the plant's configuration. */
static inline enum err plant_try_start(struct plant *p, const char *more)
{
	char path[PATH_SIZE];
	char *text = mem_printf("data: {path: data.csv, layout: table, target: class, normalize: none}\n%s", more);
	*p = (struct plant){0};
	temp_write(dir, "plant.yaml", text, strlen(text));
	free(text);
	assert_ok(plant_load(path_join(path, dir, "plant.yaml"), &p->config));
	snprintf(p->address, sizeof p->address, "127.0.0.1:%d", rpc_server_port(coordinator.server));
	p->cred.key_pem = fixture.plant.key; /* borrowed */
	p->cred.cert_pem = fixture.plant.cert;
	p->cred.ca_pem = fixture.ca.pem;
	p->cred.address = p->address;
	assert_ok(identity_make(ROLE_PLANT, FEDERATION, "p1", &p->cred.id));
	assert_ok(session_open(&p->cred, &p->session));
	enum err err = participant_open(&p->config, p->session, "p1", false, &p->participant);
	if (err != ERR_OK)
		plant_stop(p);
	return err;
}

static inline void plant_start_with(struct plant *p, const char *more)
{
	assert_ok(plant_try_start(p, more));
}

static inline void plant_start(struct plant *p)
{
	plant_start_with(p, "");
}

static inline bool step(struct plant *p)
{
	bool ended;
	assert_ok(participant_step(p->participant, &ended));
	return ended;
}

/* The next question, answered with nothing to do: what does the plant say? */
static inline const struct wire_task_request *question(struct plant *p)
{
	assert_false(step(p));
	return &coordinator.asked;
}

/* `dir` is there. */
static inline void plant_fresh_in_dir(void)
{
	path_join(state_dir, dir, "state");
	assert_ok(dir_make(state_dir, 0700));
	write_data(1);
	coordinator_start(&coordinator);
}

static inline int plant_fresh(void **state)
{
	(void)state;
	temp_make(dir);
	plant_fresh_in_dir();
	return 0;
}

static inline int plant_clean(void **state)
{
	(void)state;
	coordinator_stop(&coordinator);
	temp_remove(dir);
	return 0;
}

#endif
