/*
 * gRPC as a library of this process: started once, its log routed to ours.
 */
#include "rpc/library.h"

#include "base/log.h"
#include "rpc/client.h"

#include <dlfcn.h>
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

/*
 * Debian builds abseil with its assertions, and with them comes a search for deadlocks: every lock that gRPC takes is
 * entered into a graph, of which there is one for the process behind one spin lock. With thousands of connections that is
 * an eighth of hansad's work and 5 KiB a connection, and it is no use here: what it would find are gRPC's own mistakes,
 * on which it would abort. Its switch is C++, in a namespace that says whose build it is; a build without assertions has
 * no such search, so it does not matter where none of the names is found.
 */
static void search_for_no_deadlocks(void)
{
	static const char *const switches[] = {
		"_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
		"_ZN4absl7debian229SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
		"_ZN4absl12lts_2022062329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
		"_ZN4absl12lts_2023080229SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE",
	};
	enum { IGNORE = 0 };
	for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
		union {
			void *found;
			void (*call)(int mode);
		} f = {.found = dlsym(RTLD_DEFAULT, switches[i])};
		if (f.found != NULL)
			f.call(IGNORE);
	}
}

void rpc_init(void)
{
	search_for_no_deadlocks();
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
