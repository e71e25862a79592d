/*
 * A plant with a good certificate and bad manners: every wrong upload must be refused with the right error, and a right
 * one after all of them must still be accepted, once. Usage: e2e-refuse-tool IDENTITY-DIR OTHER-IDENTITY-DIR
 */
#include "base/clock.h"
#include "base/json.h"
#include "certs/credential.h"
#include "crypto/random.h"
#include "rpc/client.h"
#include "update/job.h"
#include "update/update.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static struct rpc_client *client_of(const struct credential *cred)
{
	struct rpc_client_config config = {.address = cred->address,
					   .ca_pem = buf_bytes(&cred->ca_pem),
					   .key_pem = buf_bytes(&cred->key_pem),
					   .cert_pem = buf_bytes(&cred->cert_pem),
					   .federation = cred->id.federation};
	struct rpc_client *client;
	if (rpc_client_new(&config, &client) != ERR_OK) {
		fprintf(stderr, "%s\n", err_text());
		exit(1);
	}
	return client;
}

static void expect(const char *what, enum err got, enum err wanted)
{
	if (got == wanted) {
		printf("ok: %s: %s\n", what, got == ERR_OK ? "accepted" : err_text());
		return;
	}
	failures++;
	printf("FAILED: %s: got %s (%s), expected %s\n", what, err_name(got), got == ERR_OK ? "accepted" : err_text(),
	       err_name(wanted));
}

struct source {
	struct bytes rest;
	size_t piece;
};

static enum err next_piece(void *arg, struct bytes *ret_piece)
{
	struct source *s = arg;
	if (s->rest.n == 0)
		return ERR_END;
	size_t n = s->rest.n < s->piece ? s->rest.n : s->piece;
	*ret_piece = bytes_of(s->rest.p, n);
	s->rest = bytes_of(s->rest.p + n, s->rest.n - n);
	return ERR_OK;
}

struct scene {
	struct rpc_client *client;
	struct wire_task task;
	struct manifest *manifest;
	uint8_t *update;
	size_t n;
};

static struct wire_head good_head(const struct scene *s)
{
	struct wire_head head = {.size = s->n, .digest = digest_of(bytes_of(s->update, s->n)), .has_update = true};
	head.update.job = s->task.job;
	head.update.round = s->task.round;
	head.update.base = s->task.base;
	head.update.manifest = s->manifest->digest;
	head.update.samples = 10;
	return head;
}

static enum err send_as(struct rpc_client *client, const struct wire_head *head, struct bytes content,
			struct wire_receipt *ret_receipt)
{
	struct source source = {content, 1000};
	struct buf reply = {0};
	struct wire_receipt receipt;
	enum err err = rpc_client_upload(client, METHOD_UPLOAD_UPDATE, head, next_piece, &source, &reply);
	if (err == ERR_OK)
		err = wire_receipt_unpack(buf_bytes(&reply), &receipt);
	buf_deinit(&reply);
	if (err == ERR_OK && ret_receipt != NULL)
		*ret_receipt = receipt;
	return err;
}

static void try_head(const struct scene *s, const char *what, const struct wire_head *head, enum err wanted)
{
	expect(what, send_as(s->client, head, bytes_of(s->update, s->n), NULL), wanted);
}

static void try_content(const struct scene *s, const char *what, struct bytes content, uint64_t said, enum err wanted)
{
	struct wire_head head = good_head(s);
	head.size = said;
	head.digest = digest_of(content);
	expect(what, send_as(s->client, &head, content, NULL), wanted);
}

static void try_value(const struct scene *s, const char *what, uint32_t bits, enum err wanted)
{
	uint8_t *copy = mem_new(s->n);
	memcpy(copy, s->update, s->n);
	memcpy(copy + 40, &bits, sizeof bits);
	try_content(s, what, bytes_of(copy, s->n), s->n, wanted);
	free(copy);
}

static void wrong_heads(const struct scene *s)
{
	struct wire_head head = good_head(s);
	random_bytes(&head.update.base, sizeof head.update.base);
	try_head(s, "another base", &head, ERR_STALE);
	head = good_head(s);
	random_bytes(&head.update.manifest, sizeof head.update.manifest);
	try_head(s, "another manifest", &head, ERR_SHAPE);
	head = good_head(s);
	head.update.round++;
	try_head(s, "a round that is not open", &head, ERR_STALE);
	head = good_head(s);
	head.update.job += 1000;
	try_head(s, "a job that does not exist", &head, ERR_NOT_FOUND);
	head = good_head(s);
	head.update.samples = 0;
	try_head(s, "no samples", &head, ERR_LIMIT);
	head = good_head(s);
	head.update.samples = (uint64_t)FIXED_WEIGHT_MAX + 1;
	try_head(s, "more samples than the range proof allows", &head, ERR_LIMIT);
	head = good_head(s);
	head.size = UINT64_MAX / 2;
	try_head(s, "an absurd size", &head, ERR_SHAPE);
	head = good_head(s);
	random_bytes(&head.digest, sizeof head.digest);
	try_head(s, "content that is not what was said", &head, ERR_MALFORMED);
}

static void wrong_contents(const struct scene *s)
{
	const float not_a_number = NAN, infinite = INFINITY;
	uint32_t bits;
	memcpy(&bits, &not_a_number, sizeof bits);
	try_value(s, "a NaN", bits, ERR_NUMERIC);
	memcpy(&bits, &infinite, sizeof bits);
	try_value(s, "an infinity", bits, ERR_NUMERIC);
	try_value(s, "a value out of range", (uint32_t)FIXED_MAX + 1, ERR_NUMERIC);
	try_value(s, "the smallest integer", 0x80000000u, ERR_NUMERIC);
	try_value(s, "a norm over the job's limit", (uint32_t)FIXED_MAX, ERR_LIMIT);
	try_content(s, "too few bytes", bytes_of(s->update, s->n - 4), s->n - 4, ERR_SHAPE);
	uint8_t *longer = mem_new(s->n + 4);
	try_content(s, "too many bytes", bytes_of(longer, s->n + 4), s->n + 4, ERR_SHAPE);
	free(longer);
	try_content(s, "fewer bytes than said", bytes_of(s->update, s->n - 4), s->n, ERR_SHAPE);
}

static void twice(struct scene *s)
{
	struct wire_receipt first = {0}, second = {0};
	struct wire_head head = good_head(s);
	expect("a good update", send_as(s->client, &head, bytes_of(s->update, s->n), &first), ERR_OK);
	expect("the same update again", send_as(s->client, &head, bytes_of(s->update, s->n), &second), ERR_OK);
	expect("its receipt says so",
	       second.repeated && !first.repeated && second.time_ms == first.time_ms ? ERR_OK : ERR_STATE, ERR_OK);
	s->update[0] ^= 1;
	head = good_head(s);
	try_head(s, "another update for the same round", &head, ERR_DUPLICATE);
}

static void not_allowed(const struct scene *s)
{
	static const struct {
		enum method_id id;
		const char *name;
	} operators[] = {{METHOD_INVITE, "Invite"},          {METHOD_REVOKE, "Revoke"},
			 {METHOD_LIST_PLANTS, "ListPlants"}, {METHOD_START_JOB, "StartJob"},
			 {METHOD_STOP_JOB, "StopJob"},       {METHOD_LIST_ROUNDS, "ListRounds"},
			 {METHOD_LIST_JOBS, "ListJobs"}};
	for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
		struct buf reply = {0};
		expect(operators[i].name, rpc_client_call(s->client, operators[i].id, bytes_of("", 0), 0, &reply),
		       ERR_DENIED);
		buf_deinit(&reply);
	}
}

static enum err find_task(struct scene *s)
{
	struct wire_task_request request = {.software = "refuse"};
	struct buf packed, reply = {0};
	buf_init(&packed, 1024);
	enum err err = wire_task_request_pack(&request, &packed);
	if (err == ERR_OK)
		err = rpc_client_call(s->client, METHOD_NEXT_TASK, buf_bytes(&packed), 0, &reply);
	if (err == ERR_OK)
		err = wire_task_unpack(buf_bytes(&reply), &s->task);
	buf_deinit(&packed);
	buf_deinit(&reply);
	TRY(err);
	if (s->task.kind != WIRE_TASK_TRAIN)
		return err_set(ERR_STATE, "no round is open");
	TRY(manifest_parse(buf_bytes(&s->task.manifest), &s->manifest));
	s->n = manifest_update_bytes(s->manifest);
	s->update = mem_new(s->n);
	return ERR_OK;
}

int main(int argc, char **argv)
{
	struct credential cred, other;
	struct scene s = {0};
	if (argc != 3)
		return 2;
	rpc_init();
	enum err err = credential_load(argv[1], clock_wall_ms(), &cred);
	if (err == ERR_OK)
		err = credential_load(argv[2], clock_wall_ms(), &other);
	if (err != ERR_OK) {
		fprintf(stderr, "%s\n", err_text());
		return 1;
	}
	s.client = client_of(&cred);
	err = find_task(&s);
	if (err != ERR_OK) {
		fprintf(stderr, "%s\n", err_text());
		return 1;
	}
	struct rpc_client *stranger = client_of(&other);
	struct wire_head head = good_head(&s);
	expect("a plant outside the cohort", send_as(stranger, &head, bytes_of(s.update, s.n), NULL), ERR_DENIED);
	rpc_client_free(stranger);
	wrong_heads(&s);
	wrong_contents(&s);
	not_allowed(&s);
	twice(&s);
	free(s.update);
	manifest_free(s.manifest);
	wire_task_free(&s.task);
	rpc_client_free(s.client);
	credential_free(&cred);
	credential_free(&other);
	rpc_shutdown();
	return failures == 0 ? 0 : 1;
}
