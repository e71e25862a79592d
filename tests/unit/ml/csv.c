#include "ml/csv.h"

#include "base/buf.h"
#include "temp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static enum err parse(const char *text, struct csv **csv)
{
	/* An exact-size copy without the final zero. */
	size_t n = strlen(text);
	char *copy = malloc(n > 0 ? n : 1);
	assert_non_null(copy);
	memcpy(copy, text, n);
	enum err e = csv_parse("t.csv", bytes_of(copy, n), csv);
	free(copy);
	return e;
}

static const char *cell(const struct csv *c, size_t row, size_t column)
{
	return c->cells[row * c->n_columns + column];
}

static void test_plain(void **state)
{
	(void)state;
	/* The same table in every dress. */
	const char *texts[] = {
		"a,b\n1,x\n2,y\n",
		"a;b\r\n1;x\r\n2;y\r\n",
		"a\tb\n1\tx\n2\ty",
		"\xef\xbb\xbf"
		"a,b\n1,x\n2,y\n\n\r\n\n",
		"# made by hand\n#, ; more\na,b\n1,x\n2,y",
		"\"a\",\"b\"\n\"1\",x\n2,\"y\"\n",
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct csv *c;
		assert_int_equal(parse(texts[i], &c), ERR_OK);
		assert_int_equal(c->n_columns, 2);
		assert_int_equal(c->n_rows, 2);
		assert_string_equal(c->names[0], "a");
		assert_string_equal(c->names[1], "b");
		assert_string_equal(cell(c, 0, 0), "1");
		assert_string_equal(cell(c, 0, 1), "x");
		assert_string_equal(cell(c, 1, 0), "2");
		assert_string_equal(cell(c, 1, 1), "y");
		assert_int_equal(csv_column(c, "b"), 1);
		assert_int_equal(csv_column(c, "c"), -1);
		csv_free(c);
	}
}

static void test_quotes(void **state)
{
	(void)state;
	struct csv *c;
	assert_int_equal(parse("a,\"b,\"\"c\"\"\",d\n\"x\ny\",\"\"\"\",\n,\"\",\"p;q\"\nlast,1,2", &c), ERR_OK);
	assert_int_equal(c->n_columns, 3);
	assert_int_equal(c->n_rows, 3);
	assert_string_equal(c->names[1], "b,\"c\"");
	assert_string_equal(cell(c, 0, 0), "x\ny");
	assert_string_equal(cell(c, 0, 1), "\"");
	assert_string_equal(cell(c, 0, 2), "");
	assert_string_equal(cell(c, 1, 0), "");
	assert_string_equal(cell(c, 1, 1), "");
	assert_string_equal(cell(c, 1, 2), "p;q");
	assert_int_equal(c->lines[0], 2);
	assert_int_equal(c->lines[1], 4); /* the first cell has a line break */
	assert_int_equal(c->lines[2], 5);
	csv_free(c);
}

/* The separator inside a quoted name does not count; a table of one column has none. */
static void test_separator(void **state)
{
	(void)state;
	struct csv *c;
	assert_int_equal(parse("\"a,b,c\";d\n1;2\n", &c), ERR_OK);
	assert_int_equal(c->n_columns, 2);
	assert_string_equal(c->names[0], "a,b,c");
	csv_free(c);
	assert_int_equal(parse("x\n1\n2\n3\n", &c), ERR_OK);
	assert_int_equal(c->n_columns, 1);
	assert_int_equal(c->n_rows, 3);
	csv_free(c);
	assert_int_equal(parse("only,names", &c), ERR_OK);
	assert_int_equal(c->n_rows, 0);
	csv_free(c);
}

static void test_malformed(void **state)
{
	(void)state;
	const struct {
		const char *text, *says;
	} cases[] = {
		{"", "t.csv:1: the line with the names"},
		{"# only\n# comments", "t.csv:2: the line with the names"},
		{"\na,b\n", "t.csv:1: the line with the names"},
		{"a,b\n1,2\n3\n", "t.csv:3: 1 cells, but the first line names 2"},
		{"a,b\n1,2,3\n", "t.csv:2: 3 cells"},
		{"a,b\n1,2\n\n3,4\n", "t.csv:3: an empty line"},
		{"a,b\n1,\"2\n3,4\n", "t.csv:2: a quoted cell has no closing quote"},
		{"a,b\n1,\"2\"x\n", "t.csv:2: text after a closing quote"},
		{"a,b\n1,2\"x\"\n", "t.csv:2: a quote inside"},
		{"a,b\n1,2\r3,4\r", "t.csv:2: a carriage return"},
		{"a,b,a\n1,2,3\n", "t.csv:1: two columns are named 'a'"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct csv *c;
		assert_int_equal(parse(cases[i].text, &c), ERR_MALFORMED);
		if (strstr(err_text(), cases[i].says) == NULL)
			fail_msg("\"%s\": \"%s\" does not say \"%s\"", cases[i].text, err_text(), cases[i].says);
	}
	struct csv *c;
	assert_int_equal(csv_parse("t.csv", bytes_of("a,b\n1,\0002\n", 9), &c), ERR_MALFORMED);
	assert_non_null(strstr(err_text(), "t.csv:2: a zero byte"));
}

static void test_numbers(void **state)
{
	(void)state;
	const struct {
		const char *text;
		double want;
	} good[] = {{"0", 0}, {"-1.5", -1.5}, {"+2e3", 2000}, {".5", .5}, {"5.", 5}, {" 7 ", 7}, {"1E-3", 1e-3}};
	const char *bad[] = {"",      "x",   "1,5", "nan", "inf", "-inf",  "0x10",
			     "1e999", "1 2", "--1", "1e",  "+",   "1_000", "1\t"};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		char text[64];
		struct csv *c;
		double v = 0;
		snprintf(text, sizeof text, "a,b\nz,%s\n", good[i].text);
		assert_int_equal(parse(text, &c), ERR_OK);
		assert_int_equal(csv_number(c, 0, 1, &v), ERR_OK);
		assert_true(v == good[i].want);
		csv_free(c);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char text[64];
		struct csv *c;
		double v = 42;
		snprintf(text, sizeof text, "a,b\nz,\"%s\"\n", bad[i]);
		assert_int_equal(parse(text, &c), ERR_OK);
		assert_int_equal(csv_number(c, 0, 1, &v), ERR_MALFORMED);
		assert_non_null(strstr(err_text(), "t.csv:2: b: '"));
		assert_true(v == 42);
		csv_free(c);
	}
}

static void test_limits(void **state)
{
	(void)state;
	struct csv *c;
	struct buf b;
	buf_init(&b, 4 << 20);
	for (int i = 0; i <= CSV_COLUMNS_MAX; i++)
		assert_int_equal(buf_printf(&b, "%sc%d", i > 0 ? "," : "", i), ERR_OK);
	assert_int_equal(csv_parse("t.csv", buf_bytes(&b), &c), ERR_LIMIT);
	buf_reset(&b);
	for (int i = 0; i < CSV_COLUMNS_MAX; i++)
		assert_int_equal(buf_printf(&b, "%sc%d", i > 0 ? "," : "", i), ERR_OK);
	assert_int_equal(csv_parse("t.csv", buf_bytes(&b), &c), ERR_OK);
	assert_int_equal(c->n_columns, CSV_COLUMNS_MAX);
	csv_free(c);
	/* A line of exactly the limit, its end included, and one byte more. */
	for (int more = 0; more < 2; more++) {
		buf_reset(&b);
		assert_int_equal(buf_printf(&b, "a,b\n"), ERR_OK);
		assert_int_equal(buf_reserve(&b, CSV_LINE_MAX + 1), ERR_OK);
		memset(b.p + b.n, '1', (size_t)(CSV_LINE_MAX + more));
		b.p[b.n + 1] = ',';
		b.n += (size_t)(CSV_LINE_MAX + more);
		b.p[b.n - 1] = '\n';
		enum err e = csv_parse("t.csv", buf_bytes(&b), &c);
		assert_int_equal(e, more ? ERR_LIMIT : ERR_OK);
		if (e == ERR_OK)
			csv_free(c);
	}
	const uint8_t one = 0;
	assert_int_equal(csv_parse("t.csv", bytes_of(&one, CSV_FILE_MAX + 1), &c), ERR_LIMIT);
	buf_deinit(&b);
}

/* Any table of any texts: what is written with RFC 4180's quotes is read back. */
static void test_round_trip(void **state)
{
	(void)state;
	static const char *const words[] = {"",         "1", "a b", "x,y", "\"", "\"\"", "line\nbreak",
					    "cr\r\nlf", "#", ";",   "\t",  "ü"};
	enum { WORDS = sizeof words / sizeof *words, ROWS = 40 };
	struct buf b;
	struct csv *c;
	buf_init(&b, 1 << 20);
	assert_int_equal(buf_printf(&b, "p,q,r\n"), ERR_OK);
	for (int i = 0; i < ROWS * 3; i++) {
		assert_int_equal(buf_printf(&b, "%s\"", i % 3 > 0 ? "," : ""), ERR_OK);
		for (const char *s = words[(i * 7 + i / 5) % WORDS]; *s != 0; s++)
			assert_int_equal(buf_printf(&b, "%s%c", *s == '"' ? "\"" : "", *s), ERR_OK);
		assert_int_equal(buf_printf(&b, "\"%s", i % 3 == 2 ? "\n" : ""), ERR_OK);
	}
	assert_int_equal(csv_parse("t.csv", buf_bytes(&b), &c), ERR_OK);
	assert_int_equal(c->n_rows, ROWS);
	for (int i = 0; i < ROWS * 3; i++)
		assert_string_equal(c->cells[i], words[(i * 7 + i / 5) % WORDS]);
	csv_free(c);
	buf_deinit(&b);
}

static void test_load(void **state)
{
	(void)state;
	char dir[PATH_SIZE], path[PATH_SIZE];
	struct csv *c;
	temp_make(dir);
	temp_write(dir, "a.csv", "a,b\n1,2\n", 8);
	temp_write(dir, "empty.csv", "", 0);
	assert_int_equal(csv_load(path_join(path, dir, "a.csv"), &c), ERR_OK);
	assert_string_equal(c->file, path);
	csv_free(c);
	assert_int_equal(csv_load(path_join(path, dir, "empty.csv"), &c), ERR_MALFORMED);
	assert_int_equal(csv_load(path_join(path, dir, "absent.csv"), &c), ERR_NOT_FOUND);
	csv_free(NULL);
	temp_remove(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),      cmocka_unit_test(test_quotes),  cmocka_unit_test(test_separator),
		cmocka_unit_test(test_malformed),  cmocka_unit_test(test_numbers), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
