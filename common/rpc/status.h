/*
 * How an error travels: as a gRPC status with the message "name: text". The name brings the same enum err back at the
 * other end; the text goes along only when it is about the peer's own request.
 */
#ifndef HANSA_RPC_STATUS_H
#define HANSA_RPC_STATUS_H

#include "base/err.h"
#include "base/mem.h"

/* The gRPC status (a number of grpc/status.h) that stands for `code`. */
int status_code(enum err code);
/* May the text of such an error be shown to the peer? */
bool status_is_public(enum err code);

enum { STATUS_TEXT_SIZE = 1100 };
/* "name: text", or "name" alone for errors that are not the peer's business; returns `out`. */
const char *status_format(enum err code, const char *text, char out[STATUS_TEXT_SIZE]);

/*
 * The inverse: sets the error text and returns the code. A status without our name in it (from gRPC itself) is told
 * from its number: network trouble, a deadline, a limit. `what` begins the message then.
 */
enum err status_parse(int grpc_status, struct bytes message, const char *what);

#endif
