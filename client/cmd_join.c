/*
 * hansa join: take part in rounds until stopped.
 */
#include "base/clock.h"
#include "base/log.h"
#include "client/commands.h"
#include "client/participant.h"

struct join_args {
	const char *config;
	bool once, json;
};

static enum err take_part(const struct join_args *args, const struct plant_config *config)
{
	struct credential cred;
	struct session *session = NULL;
	struct participant *participant = NULL;
	TRY(credential_load(config->identity, clock_wall_ms(), &cred));
	rpc_init();
	enum err err = cred.id.role == ROLE_PLANT ? ERR_OK
						  : err_set(ERR_DENIED, "%s is the credential of an %s, not of a plant",
							    config->identity, role_name(cred.id.role));
	if (err == ERR_OK)
		err = session_open(&cred, &session);
	if (err == ERR_OK)
		err = participant_open(config, session, cred.id.name, args->json, &participant);
	bool ended = false;
	if (err == ERR_OK)
		log_info("join", "%s: taking part as %s; coordinator %s", cred.id.federation, cred.id.name,
			 cred.address);
	while (err == ERR_OK && !(args->once && ended))
		err = participant_step(participant, &ended);
	if (err == ERR_OK && args->once && ended && participant_missed(participant) != NULL)
		err = err_set(ERR_STATE, "%s", participant_missed(participant));
	if (err == ERR_CANCELLED && !args->once) {
		/* Being stopped is how `join` ends. */
		log_info("join", "stopped; a round that was not finished is taken up again at the next start");
		err = ERR_OK;
	}
	participant_close(participant);
	session_close(session);
	rpc_shutdown();
	credential_free(&cred);
	return err;
}

static enum err join(const void *p, const char *const *words, size_t n_words)
{
	(void)words;
	(void)n_words;
	const struct join_args *args = p;
	struct plant_config config;
	mem_keep_large(); /* the models of a round */
	TRY(plant_load(args->config, &config));
	enum err err = take_part(args, &config);
	plant_free(&config);
	return err;
}

static const struct cli_option options[] = {
	{"config", 'c', CLI_STRING, offsetof(struct join_args, config), "FILE", "plant configuration (YAML)",
	 .required = true},
	{"once", 0, CLI_FLAG, offsetof(struct join_args, once), NULL,
	 "end after one job instead of waiting for the next; fails if this plant took no part in it",
	 .required = false},
	{"json", 0, CLI_FLAG, offsetof(struct join_args, json), NULL, "print one line of JSON per round",
	 .required = false},
	{0},
};

const struct cli_command command_join = {
	.name = "join",
	.arguments = "",
	.summary = "take part in rounds until stopped",
	.help = "Waits for the coordinator's rounds, trains on this plant's data, and sends only the deltas of tensors "
		"that the job lets travel. A\n"
		"new global model is taken into use (STATE/model.safetensors) only if it is not worse than the present "
		"one on this plant's own\n"
		"held-out samples. Survives restarts of the coordinator, of this program, and lost connections. Ctrl-C "
		"stops it; nothing is\n"
		"lost. A job that this plant cannot take part in (its classes are other ones, its data is not there) "
		"is "
		"passed over with a warning;\n"
		"start the program again when that is mended. Only the metrics named in `share:` leave the plant (and "
		"with them whether a new model\n"
		"was taken into use), and the number of samples as the update's weight.\n\n"
		"Example:\n  hansa join --config plant.yaml\n",
	.options = options,
	.args_size = sizeof(struct join_args),
	.run = join,
};
