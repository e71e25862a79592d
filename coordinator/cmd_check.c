/*
 * hansad check: what serve would do with these settings, without serving.
 */
#include "base/clock.h"
#include "coordinator/commands.h"
#include "coordinator/federation.h"
#include "crypto/tls.h"

#include <stdio.h>

struct check_args {
	const char *config;
};

static enum err describe(const struct federation *f)
{
	struct buf text;
	char when[CLOCK_TEXT_SIZE];
	buf_init(&text, 64 << 10);
	enum err err = config_canonical(settings_rows, &f->settings, &text);
	if (err == ERR_OK)
		printf("settings: %s\n", buf_str(&text));
	buf_reset(&text);
	if (err == ERR_OK)
		err = tls_policy_describe(&text);
	if (err == ERR_OK)
		printf("%s", buf_str(&text));
	buf_deinit(&text);
	printf("coordinator certificate until: %s\n", clock_format(cert_not_after_ms(f->credential.cert), when));
	printf("certificate authority until: %s\n", clock_format(cert_not_after_ms(ca_cert(f->ca)), when));
	return err;
}

static enum err check(const void *p, const char *const *words, size_t n_words)
{
	(void)words, (void)n_words;
	const struct check_args *args = p;
	struct federation f;
	TRY(federation_read(args->config, clock_wall_ms(), &f));
	enum err err = describe(&f);
	federation_close(&f);
	return err;
}

static const struct cli_option options[] = {
	{"config", 'c', CLI_STRING, offsetof(struct check_args, config), "FILE", "settings (DIR/" SETTINGS_FILE ")",
	 .required = true},
	{0},
};

const struct cli_command command_check = {
	.name = "check",
	.arguments = "",
	.summary = "show the effective settings, the TLS policy and when certificates expire",
	.help = "Example:\n  hansad check --config /var/lib/hansa/hansad.yaml\n",
	.options = options,
	.args_size = sizeof(struct check_args),
	.run = check,
};
