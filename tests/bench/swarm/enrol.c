#include "swarm/enrol.h"

#include "certs/joincode.h"
#include "crypto/random.h"
#include "rpc/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CODE_VALID_MS = 10 * 60 * 1000 };

struct enrolment {
	const struct enrol_job *job;
	atomic_size_t next, made;
	atomic_bool failed;
	pthread_mutex_t lock;
	enum err err; /* of the first that failed, under lock */
	char text[1024];
};

/* One thread's connections. */
struct desk {
	const struct enrol_job *job;
	struct rpc_client *operator;  /* owned */
	struct rpc_client *enrolment; /* owned; NULL until the first join code says where */
};

const char *enrol_name(const char *prefix, size_t i, char out[ENROL_NAME_SIZE])
{
	snprintf(out, ENROL_NAME_SIZE, "%.40s-%05zu", prefix, i + 1);
	return out;
}

const char *enrol_dir(const char *state, const char *prefix, size_t i, char out[PATH_SIZE])
{
	char name[ENROL_NAME_SIZE];
	return path_join(out, state, enrol_name(prefix, i, name));
}

static enum err invite(const struct desk *d, const char *name, struct joincode *ret_code)
{
	struct wire_invite_request asked = {.role = ROLE_PLANT, .valid_ms = CODE_VALID_MS};
	struct wire_invite_reply given;
	struct buf request, reply = {0};
	snprintf(asked.name, sizeof asked.name, "%s", name);
	buf_init(&request, 1024);
	enum err err = wire_invite_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = rpc_client_call(d->operator, METHOD_INVITE, buf_bytes(&request), 0, &reply);
	if (err == ERR_OK)
		err = wire_invite_reply_unpack(buf_bytes(&reply), &given);
	if (err == ERR_OK)
		err = joincode_parse(given.code, ret_code);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err redeem(struct desk *d, const struct joincode *code, struct bytes csr,
		       struct wire_enroll_reply *ret_reply)
{
	const struct credential *op = d->job->operator;
	struct rpc_client_config config = {
		.address = code->address, .ca_pem = buf_bytes(&op->ca_pem), .federation = op->id.federation};
	struct wire_enroll_request asked = {.csr = csr};
	struct buf request, reply = {0};
	if (d->enrolment == NULL)
		TRY(rpc_client_new(&config, &d->enrolment));
	memcpy(asked.secret, code->secret, sizeof asked.secret);
	buf_init(&request, WIRE_CSR_MAX + 1024);
	enum err err = wire_enroll_request_pack(&asked, &request);
	if (err == ERR_OK)
		err = rpc_client_call(d->enrolment, METHOD_ENROLL, buf_bytes(&request), 0, &reply);
	if (err == ERR_OK)
		err = wire_enroll_reply_unpack(buf_bytes(&reply), ret_reply);
	secret_wipe(&asked, sizeof asked);
	buf_deinit(&request);
	buf_deinit(&reply);
	return err;
}

static enum err save(const struct desk *d, const char *dir, const struct key *key,
		     const struct wire_enroll_reply *given)
{
	struct cert *cert;
	TRY(cert_parse(buf_bytes(&given->certificate), &cert));
	enum err err = credential_save(dir, key, cert, buf_bytes(&d->job->operator->ca_pem), given->address);
	cert_free(cert);
	return err;
}

static enum err enrol_one(struct desk *d, size_t i)
{
	char name[ENROL_NAME_SIZE], dir[PATH_SIZE];
	struct joincode code;
	struct key *key = NULL;
	struct buf csr = {0};
	struct wire_enroll_reply given = {0};
	TRY(invite(d, enrol_name(d->job->prefix, i, name), &code));
	TRY(dir_make(enrol_dir(d->job->state, d->job->prefix, i, dir), 0700));
	enum err err = key_generate(KEY_P256, &key);
	if (err == ERR_OK)
		err = csr_make(key, &code.id, &csr);
	if (err == ERR_OK)
		err = redeem(d, &code, buf_bytes(&csr), &given);
	if (err == ERR_OK)
		err = save(d, dir, key, &given);
	wire_enroll_reply_free(&given);
	buf_deinit(&csr);
	key_free(key);
	secret_wipe(&code, sizeof code);
	return err;
}

static enum err desk_open(const struct enrol_job *job, struct desk *ret_desk)
{
	const struct credential *op = job->operator;
	struct rpc_client_config config = {
		.address = op->address,
		.ca_pem = buf_bytes(&op->ca_pem),
		.key_pem = buf_bytes(&op->key_pem),
		.cert_pem = buf_bytes(&op->cert_pem),
		.federation = op->id.federation,
	};
	struct rpc_client *client;
	TRY(rpc_client_new(&config, &client));
	*ret_desk = (struct desk){.job = job, .operator= client };
	return ERR_OK;
}

static enum err work(struct enrolment *e)
{
	char dir[PATH_SIZE], path[PATH_SIZE], name[ENROL_NAME_SIZE];
	struct desk desk = {.job = NULL};
	enum err err = ERR_OK;
	for (;;) {
		size_t i = atomic_fetch_add(&e->next, 1);
		if (i >= e->job->plants || atomic_load(&e->failed) || err != ERR_OK)
			break;
		enrol_dir(e->job->state, e->job->prefix, i, dir);
		if (file_exists(path_join(path, dir, "cert.pem")))
			continue;
		if (desk.job == NULL)
			err = desk_open(e->job, &desk);
		if (err == ERR_OK)
			err = enrol_one(&desk, i);
		if (err != ERR_OK)
			err_add(err, "enrolling %s", enrol_name(e->job->prefix, i, name));
		else
			atomic_fetch_add(&e->made, 1);
	}
	rpc_client_free(desk.operator);
	rpc_client_free(desk.enrolment);
	return err;
}

static void *work_main(void *arg)
{
	struct enrolment *e = arg;
	enum err err = work(e);
	if (err != ERR_OK && !atomic_exchange(&e->failed, true)) {
		pthread_mutex_lock(&e->lock);
		e->err = err;
		snprintf(e->text, sizeof e->text, "%s", err_text());
		pthread_mutex_unlock(&e->lock);
	}
	return NULL;
}

enum err enrol_plants(const struct enrol_job *job, size_t *ret_new)
{
	struct enrolment e = {.job = job, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t threads[ENROL_THREADS_MAX];
	size_t n = 0;
	ENSURE(job->threads >= 1 && job->threads <= ENROL_THREADS_MAX);
	while (n < job->threads && n < job->plants && pthread_create(&threads[n], NULL, work_main, &e) == 0)
		n++;
	if (n == 0)
		work_main(&e);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	pthread_mutex_destroy(&e.lock);
	if (e.err != ERR_OK)
		return err_set(e.err, "%s", e.text);
	*ret_new = atomic_load(&e.made);
	return ERR_OK;
}
