/*
 * gRPC as a library of this process: started once, its log routed to ours.
 */
#include "rpc/library.h"

#include "base/log.h"
#include "rpc/client.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_int servers;

void library_serves(bool starts)
{
	atomic_fetch_add(&servers, starts ? 1 : -1);
}

/*
 * gRPC calls "error" what is often only a peer that hung up. For a server its log is the one place that says why a plant
 * could not shake hands; a client returns the error to its user anyway and must not say it twice.
 */
static void log_line(gpr_log_func_args *args)
{
	const char *file = strrchr(args->file, '/');
	bool show = args->severity == GPR_LOG_SEVERITY_ERROR && atomic_load(&servers) > 0;
	log_at(show ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "grpc", "%s (%s:%d)", args->message,
	       file != NULL ? file + 1 : args->file, args->line);
}

void rpc_init(void)
{
	/* The system's own resolver: what /etc/nsswitch.conf says counts. c-ares leaks a little for every name. */
	setenv("GRPC_DNS_RESOLVER", "native", 0);
	gpr_set_log_function(log_line);
	gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
	grpc_init();
}

void rpc_shutdown(void)
{
	grpc_shutdown();
}
