#include "rpc/status.h"

#include <grpc/status.h>
#include <stdio.h>
#include <string.h>

struct row {
	grpc_status_code status;
	bool public; /* the text is about what the peer asked for */
};

static const struct row rows[ERR_COUNT] = {
	[ERR_OK] = {GRPC_STATUS_OK, false},
	[ERR_IO] = {GRPC_STATUS_INTERNAL, false},
	[ERR_CORRUPT] = {GRPC_STATUS_DATA_LOSS, false},
	[ERR_CONFIG] = {GRPC_STATUS_INVALID_ARGUMENT, true},
	[ERR_USAGE] = {GRPC_STATUS_INVALID_ARGUMENT, true},
	[ERR_MALFORMED] = {GRPC_STATUS_INVALID_ARGUMENT, true},
	[ERR_UNAUTHENTIC] = {GRPC_STATUS_UNAUTHENTICATED, true},
	[ERR_DENIED] = {GRPC_STATUS_PERMISSION_DENIED, true},
	[ERR_NOT_FOUND] = {GRPC_STATUS_NOT_FOUND, true},
	[ERR_STATE] = {GRPC_STATUS_FAILED_PRECONDITION, true},
	[ERR_STALE] = {GRPC_STATUS_FAILED_PRECONDITION, true},
	[ERR_DUPLICATE] = {GRPC_STATUS_ALREADY_EXISTS, true},
	[ERR_LIMIT] = {GRPC_STATUS_RESOURCE_EXHAUSTED, true},
	[ERR_SHAPE] = {GRPC_STATUS_INVALID_ARGUMENT, true},
	[ERR_NUMERIC] = {GRPC_STATUS_INVALID_ARGUMENT, true},
	[ERR_CRYPTO] = {GRPC_STATUS_INTERNAL, false},
	[ERR_UNAVAILABLE] = {GRPC_STATUS_UNAVAILABLE, true},
	[ERR_DEADLINE] = {GRPC_STATUS_DEADLINE_EXCEEDED, true},
	[ERR_CANCELLED] = {GRPC_STATUS_CANCELLED, true},
	[ERR_END] = {GRPC_STATUS_INTERNAL, false},
	[ERR_INTERNAL] = {GRPC_STATUS_INTERNAL, false},
};

/* What gRPC itself reports, without a name of ours. Everything else is ERR_INTERNAL. */
static const struct {
	grpc_status_code status;
	enum err code;
	const char *text; /* NULL: gRPC's own */
} bare[] = {
	/* nobody here asked for it: the other end or the link gave up */
	{GRPC_STATUS_CANCELLED, ERR_UNAVAILABLE, NULL},
	{GRPC_STATUS_DEADLINE_EXCEEDED, ERR_DEADLINE, "the coordinator did not answer in time"},
	{GRPC_STATUS_RESOURCE_EXHAUSTED, ERR_LIMIT, NULL},
	{GRPC_STATUS_UNAVAILABLE, ERR_UNAVAILABLE, NULL},
	{GRPC_STATUS_UNAUTHENTICATED, ERR_UNAUTHENTIC, NULL},
	{GRPC_STATUS_PERMISSION_DENIED, ERR_DENIED, NULL},
	{GRPC_STATUS_UNIMPLEMENTED, ERR_NOT_FOUND, NULL},
};

static const struct row *row(enum err code)
{
	return (unsigned)code < ERR_COUNT ? &rows[code] : &rows[ERR_INTERNAL];
}

int status_code(enum err code)
{
	return row(code)->status;
}

bool status_is_public(enum err code)
{
	return row(code)->public;
}

const char *status_format(enum err code, const char *text, char out[STATUS_TEXT_SIZE])
{
	if (status_is_public(code) && text[0] != '\0')
		snprintf(out, STATUS_TEXT_SIZE, "%s: %s", err_name(code), text);
	else
		snprintf(out, STATUS_TEXT_SIZE, "%s", err_name(code));
	return out;
}

/* Foreign text goes to a terminal and into logs: one line, no control characters. */
static void clean(struct bytes message, char out[STATUS_TEXT_SIZE])
{
	size_t n = message.n < STATUS_TEXT_SIZE - 1 ? message.n : STATUS_TEXT_SIZE - 1;
	for (size_t i = 0; i < n; i++)
		out[i] = message.p[i] < 0x20 || message.p[i] == 0x7f ? ' ' : (char)message.p[i];
	out[n] = '\0';
}

enum err status_parse(int grpc_status, struct bytes message, const char *what)
{
	char text[STATUS_TEXT_SIZE];
	clean(message, text);
	if (grpc_status == GRPC_STATUS_OK)
		return ERR_OK;
	size_t name_n = strcspn(text, ":");
	enum err code = err_from_name(text, name_n);
	bool ours = strlen(err_name(code)) == name_n && memcmp(err_name(code), text, name_n) == 0;
	if (ours && code != ERR_OK && status_code(code) == grpc_status) {
		const char *rest = text + name_n;
		rest += strspn(rest, ": ");
		return err_set(code, "%s", rest[0] != '\0' ? rest : "the server had to give up; its log says why");
	}
	code = ERR_INTERNAL;
	const char *reason = NULL;
	for (size_t i = 0; i < sizeof bare / sizeof bare[0]; i++) {
		if ((int)bare[i].status == grpc_status) {
			code = bare[i].code;
			reason = bare[i].text;
		}
	}
	if (reason != NULL)
		return err_set(code, "%s: %s", what, reason);
	return err_set(code, "%s: %s (gRPC status %d)", what, text[0] != '\0' ? text : "no reason given", grpc_status);
}
