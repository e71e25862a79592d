#include "base/fixture.h"

#include "base/log.h"

#include <pthread.h>
#include <regex.h>

static void assert_matches(const char *text, const char *pattern)
{
	regex_t regex;
	assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
	int found = regexec(&regex, text, 0, NULL, 0);
	regfree(&regex);
	if (found != 0)
		fail_msg("'%s' does not match '%s'", text, pattern);
}

#define WHEN "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void test_form(void **state)
{
	(void)state;
	struct capture c = capture_begin(STDERR_FILENO);
	log_info("round", "opened job=%d round=%d", 1, 3);
	char *text = capture_end(&c);
	assert_matches(text, WHEN "info  round: opened job=1 round=3\n$");
	free(text);
	c = capture_begin(STDERR_FILENO);
	log_error("store", "x");
	text = capture_end(&c);
	assert_matches(text, WHEN "error store: x\n$");
	free(text);
}

static void test_levels(void **state)
{
	(void)state;
	static const char *const printed[LOG_LEVEL_COUNT] = {"E", "EW", "EWI", "EWID"};
	for (unsigned level = 0; level < LOG_LEVEL_COUNT; level++) {
		log_set_level((enum log_level)level);
		struct capture c = capture_begin(STDERR_FILENO);
		log_error("m", "E");
		log_warn("m", "W");
		log_info("m", "I");
		log_debug("m", "D");
		char *text = capture_end(&c), seen[8] = "";
		size_t n = 0;
		for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
			seen[n++] = line[strlen(line) - 1];
		assert_string_equal(seen, printed[level]);
		free(text);
	}
	log_set_level(LOG_LEVEL_INFO);
}

static void test_one_line_whatever_the_text(void **state)
{
	(void)state;
	char lots[10000];
	memset(lots, 'y', sizeof lots - 1);
	lots[sizeof lots - 1] = '\0';
	struct capture c = capture_begin(STDERR_FILENO);
	log_warn("peer", "name=%s", "a\nb\033[2Jc\r\x7f");
	log_warn("peer", "%s", lots);
	char *text = capture_end(&c);
	char *first = strtok(text, "\n"), *second = strtok(NULL, "\n");
	assert_matches(first, WHEN "warn  peer: name=a\\?b\\?\\[2Jc\\?\\?$");
	assert_true(strlen(second) > 1900 && strlen(second) < 2048);
	assert_null(strtok(NULL, "\n"));
	free(text);
}

static void test_progress_line_is_cleared(void **state)
{
	(void)state;
	struct capture c = capture_begin(STDERR_FILENO);
	log_progress_shown(true);
	log_info("m", "one");
	log_info("m", "two");
	char *text = capture_end(&c);
	assert_memory_equal(text, "\r\033[K2", 5);
	assert_null(strchr(text + 2, 033));
	free(text);
}

enum { THREADS = 4, LINES = 200 };

static void *chatter(void *arg)
{
	for (int i = 0; i < LINES; i++)
		log_info("thread", "%s", (const char *)arg);
	return NULL;
}

static void test_lines_do_not_mix(void **state)
{
	(void)state;
	static char texts[THREADS][200];
	pthread_t threads[THREADS];
	size_t counts[THREADS] = {0};
	struct capture c = capture_begin(STDERR_FILENO);
	for (int i = 0; i < THREADS; i++) {
		memset(texts[i], 'a' + i, sizeof texts[i] - 1);
		assert_int_equal(pthread_create(&threads[i], NULL, chatter, texts[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	char *text = capture_end(&c);
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		const char *tail = strstr(line, "thread: ");
		assert_non_null(tail);
		int i = tail[8] - 'a';
		assert_true(i >= 0 && i < THREADS);
		assert_string_equal(tail + 8, texts[i]);
		counts[i]++;
	}
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(counts[i], LINES);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_form),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_one_line_whatever_the_text),
		cmocka_unit_test(test_progress_line_is_cleared),
		cmocka_unit_test(test_lines_do_not_mix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
