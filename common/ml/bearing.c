/*
 * Kinematics, plants and files of the synthetic bearing data; the signal itself is in bearing_signal.c.
 */
#include "ml/bearing_plant.h"

#include "base/file.h"
#include "base/rng.h"
#include "ml/npy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PI 3.14159265358979323846

/* SKF 6205-2RS, lengths in mm. */
enum { BALLS = 9 };
static const double ball_mm = 7.94, pitch_mm = 39.04, mil_mm = 0.0254;

static const char *const place_names[] = {"none", "ball", "inner", "outer"};
const struct bearing_class bearing_classes[] = {
	{"normal", PLACE_NONE, 0},  {"B007", PLACE_BALL, 7},    {"B014", PLACE_BALL, 14},   {"B021", PLACE_BALL, 21},
	{"IR007", PLACE_INNER, 7},  {"IR014", PLACE_INNER, 14}, {"IR021", PLACE_INNER, 21}, {"OR007", PLACE_OUTER, 7},
	{"OR014", PLACE_OUTER, 14}, {"OR021", PLACE_OUTER, 21}, {NULL, PLACE_NONE, 0},
};

#define AT(field) offsetof(struct bearing_config, field)
const struct config_row bearing_rows[] = {
	{"seed", CONFIG_INT, AT(seed), .def = "1", .min = 0, .max = 9007199254740992.0,
	 .help = "same seed, same files"},
	{"plants", CONFIG_INT, AT(plants), .def = "4", .min = 1, .max = 63, .help = "plants besides the lab"},
	{"seconds", CONFIG_REAL, AT(seconds), .def = "10", .min = 0.1, .max = 60, .help = "length of each recording"},
	{"rate", CONFIG_REAL, AT(rate), .def = "12000", .min = 8000, .max = 100000, .help = "samples a second"},
	{"severity", CONFIG_REAL, AT(severity), .def = "1", .min = 0, .max = 3,
	 .help = "how far plants are from the lab; 0: only in load"},
	{0},
};
#undef AT

/* Recorded speeds at 0 to 3 hp as at CWRU, carried on with the slip of the motor. */
static const double load_rpm[] = {1797, 1772, 1750, 1730, 1712, 1695};
enum { LOADS = sizeof load_rpm / sizeof *load_rpm };

static const struct bearing_plant lab = {
	.slip = 0.004,
	.jitter = 0.012,
	.mode = {{.hz = 880, .damping = 0.060, .from_rough = 0.50, .from = {0, 0.55, 0.80, 0.60}},
		 {.hz = 2350, .damping = 0.035, .from_rough = 0.60, .from = {0, 0.80, 0.50, 1.00}},
		 {.hz = 3450, .damping = 0.028, .from_rough = 0.45, .from = {0, 0.45, 0.85, 0.75}}},
	.zone = 0.42,
	.zone_floor = 0.20,
	.harmonic = {0.035, 0.020, 0.012},
	.harmonic_phase = {0.3, 1.1, 2.0},
	.mesh = 0.010,
	.mesh_order = 36,
	.hum = 0.012,
	.hum_hz = 120,
	.noise = 0.040,
	.noise_colour = 0.25,
	.rough = 0.030,
	.gain = 1,
	.cutoff_hz = 5200,
};

/* How much each number varies between plants at severity 1: deviation of its logarithm. */
static const struct {
	double hz, damping, path, zone, harmonic, tone, noise, rough, gain, cutoff, speed, jitter;
} spread = {
	.hz = 0.02,
	.damping = 0.15,
	.path = 0.15,
	.zone = 0.08,
	.harmonic = 0.35,
	.tone = 0.40,
	.noise = 0.20,
	.rough = 0.20,
	.gain = 0.30,
	.cutoff = 0.08,
	.speed = 0.004,
	.jitter = 0.15,
};

double bearing_order(enum bearing_place place)
{
	const double ratio = ball_mm / pitch_mm;
	const double orders[PLACE_COUNT] = {
		[PLACE_NONE] = 0,
		/* A spot on a ball meets one race each half turn of the ball. */
		[PLACE_BALL] = (1 - ratio * ratio) / ratio,
		[PLACE_INNER] = BALLS / 2.0 * (1 + ratio),
		[PLACE_OUTER] = BALLS / 2.0 * (1 - ratio),
	};
	return orders[place];
}

double bearing_cage_order(void)
{
	return (1 - ball_mm / pitch_mm) / 2;
}

double bearing_pass_seconds(int mil, double shaft_hz)
{
	/* The contact runs around the outer race (diameter pitch + ball) with the cage. */
	return mil * mil_mm / (PI * (pitch_mm + ball_mm) * shaft_hz * bearing_cage_order());
}

static void vary(struct rng *r, double *value, double deviation)
{
	/* Three deviations at most: plants are different, not absurd. */
	double x = rng_normal(r);
	*value *= exp(deviation * (x > 3 ? 3 : x < -3 ? -3 : x));
}

void bearing_plant_draw(const struct bearing_config *config, int64_t number, struct bearing_plant *ret_plant)
{
	struct bearing_plant p = lab;
	struct rng r;
	double s = number == 0 ? 0 : config->severity;
	rng_stream(&r, (uint64_t)config->seed, "bearing plant", (uint64_t)number);
	/* The first plants have the loads of the CWRU rig and two more, further ones any of these. */
	p.load_hp = number < LOADS ? (double)number : (double)rng_below(&r, LOADS);
	p.shaft_hz = load_rpm[(size_t)p.load_hp] / 60;
	vary(&r, &p.shaft_hz, s * spread.speed);
	vary(&r, &p.jitter, s * spread.jitter);
	for (size_t k = 0; k < BEARING_MODES; k++) {
		vary(&r, &p.mode[k].hz, s * spread.hz);
		vary(&r, &p.mode[k].damping, s * spread.damping);
		vary(&r, &p.mode[k].from_rough, s * spread.path);
		for (size_t place = PLACE_BALL; place < PLACE_COUNT; place++)
			vary(&r, &p.mode[k].from[place], s * spread.path);
	}
	/* Load widens the load zone and presses harder on every defect. */
	p.zone *= 1 + 0.04 * p.load_hp;
	vary(&r, &p.zone, s * spread.zone);
	for (size_t k = 0; k < BEARING_HARMONICS; k++) {
		vary(&r, &p.harmonic[k], s * spread.harmonic);
		p.harmonic_phase[k] += s * rng_normal(&r);
	}
	vary(&r, &p.mesh, s * spread.tone);
	p.mesh_order += s > 0 ? (double)rng_below(&r, 24) - 12 : 0;
	vary(&r, &p.hum, s * spread.tone);
	p.hum_hz = s > 0 && rng_below(&r, 2) == 1 ? 100 : 120;
	vary(&r, &p.noise, s * spread.noise);
	p.noise_colour += s * 0.2 * (2 * rng_uniform(&r) - 1);
	vary(&r, &p.rough, s * spread.rough);
	vary(&r, &p.gain, s * spread.gain);
	vary(&r, &p.cutoff_hz, s * spread.cutoff);
	*ret_plant = p;
}

static const struct bearing_class *class_find(const char *name)
{
	for (const struct bearing_class *c = bearing_classes; c->name != NULL; c++) {
		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

static enum err find(const struct bearing_config *config, int64_t plant, const char *name,
		     const struct bearing_class **ret_class)
{
	const struct bearing_class *class = class_find(name);
	if (class == NULL)
		return err_set(ERR_NOT_FOUND, "no bearing class '%s'; they are normal and B, IR, OR with 007, 014, 021",
			       name);
	if (plant < 0 || plant > config->plants)
		return err_set(ERR_NOT_FOUND, "no plant %lld; they are 0 (the lab) to %lld", (long long)plant,
			       (long long)config->plants);
	*ret_class = class;
	return ERR_OK;
}

enum err bearing_signal(const struct bearing_config *config, int64_t plant, const char *name, float *out, size_t n)
{
	const struct bearing_class *class = NULL;
	TRY(find(config, plant, name, &class));
	bearing_generate(config, plant, class, out, n);
	return ERR_OK;
}

enum err bearing_frequencies(const struct bearing_config *config, int64_t plant, const char *name, double *ret_shaft,
			     double *ret_fault)
{
	const struct bearing_class *class = NULL;
	struct bearing_plant p;
	TRY(find(config, plant, name, &class));
	bearing_plant_draw(config, plant, &p);
	*ret_shaft = p.shaft_hz;
	*ret_fault = p.shaft_hz * bearing_order(class->place);
	return ERR_OK;
}

static enum err index_head(const struct bearing_config *config, struct buf *out)
{
	TRY(buf_printf(out, "# synthetic bearing vibration in g, %.17g samples/s: simulated, no measurement\n",
		       config->rate));
	TRY(buf_printf(out, "# seed %lld, %lld plants and a lab (load0), %.17g s, severity %.17g\n",
		       (long long)config->seed, (long long)config->plants, config->seconds, config->severity));
	TRY(buf_printf(out, "# model: McFadden and Smith, J. Sound Vib. 96 (1984); Antoni and Randall, J. Vib. Acoust. "
			    "125 (2003);\n"));
	TRY(buf_printf(out, "# model: Sawalhi and Randall, Mech. Syst. Signal Process. 25 (2011)\n"));
	TRY(buf_printf(out, "# bearing: SKF 6205-2RS; faults: B ball, IR inner race, OR outer race; 7, 14, 21 mil\n"));
	return buf_printf(
		out,
		"file,load_hp,rpm_recorded,class_id,class,fault_location,fault_size_mil,n_samples,std_g,absmax_g\n");
}

static enum err index_row(const struct bearing_plant *p, int64_t number, const struct bearing_class *c, const float *x,
			  size_t n, struct buf *out)
{
	double sum = 0, squares = 0, absmax = 0;
	for (size_t i = 0; i < n; i++) {
		sum += (double)x[i];
		absmax = fmax(absmax, fabs((double)x[i]));
	}
	for (size_t i = 0; i < n; i++)
		squares += ((double)x[i] - sum / (double)n) * ((double)x[i] - sum / (double)n);
	return buf_printf(out, "load%lld/%s.npy,%g,%.0f,%d,%s,%s,%d,%zu,%.5f,%.4f\n", (long long)number, c->name,
			  p->load_hp, p->shaft_hz * 60, (int)(c - bearing_classes), c->name, place_names[c->place],
			  c->mil, n, sqrt(squares / (double)n), absmax);
}

static enum err write_plant(const struct bearing_config *config, int64_t number, const char *dir, float *x, size_t n,
			    struct buf *rows)
{
	struct bearing_plant p;
	const struct shape shape = {.n = 1, .d = {n}};
	char *folder = mem_printf("%s/load%lld", dir, (long long)number);
	bearing_plant_draw(config, number, &p);
	enum err e = dir_make(folder, 0755);
	for (const struct bearing_class *c = bearing_classes; e == ERR_OK && c->name != NULL; c++) {
		char *path = mem_printf("%s/%s.npy", folder, c->name);
		bearing_generate(config, number, c, x, n);
		e = npy_save(path, &shape, x);
		if (e == ERR_OK)
			e = index_row(&p, number, c, x, n, rows);
		free(path);
	}
	free(folder);
	return e;
}

enum err bearing_write(const struct bearing_config *config, const char *dir)
{
	struct buf rows;
	size_t n = (size_t)(config->seconds * config->rate);
	float *x = mem_array(n, sizeof *x);
	char *path = mem_printf("%s/index.csv", dir);
	buf_init(&rows, 1 << 20);
	enum err e = index_head(config, &rows);
	for (int64_t number = 0; e == ERR_OK && number <= config->plants; number++)
		e = write_plant(config, number, dir, x, n, &rows);
	if (e == ERR_OK)
		e = file_replace(path, buf_bytes(&rows), 0644);
	buf_deinit(&rows);
	free(path);
	free(x);
	return e;
}
