/*
 * The vibration that one sensor sees, sample by sample.
 *
 *	force     impacts of the defect (entry into and exit from the spall) at angles phi_k of the shaft, plus the
 *broad noise of rolling path      each structural mode is a damped oscillator z; an impact adds to z, z turns and
 *decays, Im z is felt rest      harmonics of the shaft, a tone of the coupling, hum of the line, noise of sensor and
 *electronics sensor    low-pass, gain, 16-bit converter
 *
 * phi_{k+1} = phi_k + 2 pi / order * (1 + slip + jitter * N(0,1)): the balls' random slip adds up, so that the train
 *loses its phase (Antoni & Randall); a jitter around fixed angles would not. The load zone is Stribeck's, q = (1 - (1 -
 *cos a) / (2 eps))^1.5 (McFadden & Smith): an inner-race defect passes it once a turn of the shaft, a ball's once a
 *turn of the cage, an outer-race defect sits in it. Entering a spall is a gentle push, leaving it half a pass later a
 *short blow; both grow with the spall (Sawalhi & Randall).
 */
#include "ml/bearing_plant.h"

#include "base/rng.h"

#include <math.h>

#define PI 3.14159265358979323846

/* Steps of the converter: 16 bits over +-10 g. */
static const double adc_step_g = 20.0 / 65536, adc_max_g = 10;

/* An impact of a 7 mil defect in the middle of the load zone, in g at the sensor before the path's gain. */
static const double impact_g = 0.55;

enum { SLOW = 64 /* samples between steps of what changes slowly */ };

struct oscillator {
	double re, im;           /* z */
	double turn_re, turn_im; /* one sample of turning and decaying */
	double decay, omega;     /* 1/s, rad/s */
	double hz, gain, rough;  /* gain of the impacts of this defect; of rolling */
};

struct defect {
	enum bearing_place place;
	double interval, slip, jitter;                                 /* rad of the shaft; shares */
	double next;                                                   /* shaft angle of the next entry */
	double strength;                                               /* g */
	double pass_seconds, entry_share, entry_seconds, exit_seconds; /* durations of the two pushes */
	unsigned count;
	double wander;          /* ball: how well the spot hits the track, slow */
	double exit_at, exit_g; /* pending exit: time in samples (negative: none), strength */
};

struct signal {
	const struct bearing_plant *plant;
	double rate;
	struct rng events, noise;
	struct oscillator mode[BEARING_MODES];
	struct defect defect;
	double angle;              /* of the shaft, rad */
	double torque, neighbours; /* operation is not steady: slow, deviation 1 */
	double loudness;           /* of the neighbours' noise, factor */
	double coloured, filtered;
};

/* Share of a half-sine push of `seconds` that reaches an oscillator at `hz`: its spectrum, 1 for a very short one. */
static double push_spectrum(double hz, double seconds)
{
	double u = 2 * hz * seconds;
	if (fabs(1 - u * u) < 1e-6)
		return PI / 4;
	return fabs(cos(PI * u / 2) / (1 - u * u));
}

static double load_at(const struct bearing_plant *p, double angle)
{
	double inside = 1 - (1 - cos(angle)) / (2 * p->zone);
	return p->zone_floor + (1 - p->zone_floor) * (inside > 0 ? inside * sqrt(inside) : 0);
}

/* A push that ended `age` seconds ago. */
static void push(struct signal *s, double g, double seconds, double age)
{
	for (size_t k = 0; k < BEARING_MODES; k++) {
		struct oscillator *o = &s->mode[k];
		double a = g * o->gain * push_spectrum(o->hz, seconds) * exp(-o->decay * age);
		o->re += a * cos(o->omega * age);
		o->im += a * sin(o->omega * age);
	}
}

static double strength_none(struct signal *s)
{
	(void)s;
	return 0;
}

static double strength_inner(struct signal *s)
{
	return load_at(s->plant, s->defect.next);
}

static double strength_outer(struct signal *s)
{
	(void)s;
	return 1;
}

/* The races take turns; the outer one is nearer to the sensor. The ball's axis wanders, so the spot at times misses the
 * track. */
static double strength_ball(struct signal *s)
{
	struct defect *d = &s->defect;
	d->wander = 0.97 * d->wander + 0.15 * rng_normal(&s->events);
	double hits = 1 / (1 + exp(-1.5 - d->wander));
	return (d->count % 2 == 0 ? 1.0 : 0.65) * hits * load_at(s->plant, bearing_cage_order() * d->next);
}

static double (*const strengths[PLACE_COUNT])(struct signal *s) = {
	[PLACE_NONE] = strength_none,
	[PLACE_BALL] = strength_ball,
	[PLACE_INNER] = strength_inner,
	[PLACE_OUTER] = strength_outer,
};

/* All that the defect does between the samples i - 1 and i, while the shaft turns from `before` to s->angle. */
static void defect_step(struct signal *s, size_t i, double before)
{
	struct defect *d = &s->defect;
	while (d->next <= s->angle) {
		double at = (double)i - (s->angle - d->next) / (s->angle - before);
		double g = d->strength * exp(0.12 * rng_normal(&s->events) + 0.15 * s->torque) * strengths[d->place](s);
		push(s, g * d->entry_share, d->entry_seconds, ((double)i - at) / s->rate);
		d->exit_at = at + d->pass_seconds / 2 * s->rate;
		d->exit_g = g;
		d->count++;
		d->next += d->interval * (1 + d->slip + d->jitter * rng_normal(&s->events));
	}
	if (d->exit_at >= 0 && d->exit_at <= (double)i) {
		push(s, d->exit_g, d->exit_seconds, ((double)i - d->exit_at) / s->rate);
		d->exit_at = -1;
	}
}

/* Torque and the machines next door wander with memories of a second and of three. */
static void operation_step(struct signal *s)
{
	double keep = exp(-SLOW / s->rate), keep_long = exp(-SLOW / s->rate / 3);
	s->torque = keep * s->torque + sqrt(1 - keep * keep) * rng_normal(&s->noise);
	s->neighbours = keep_long * s->neighbours + sqrt(1 - keep_long * keep_long) * rng_normal(&s->noise);
	s->loudness = exp(0.30 * s->neighbours);
}

static void modes_step(struct signal *s, double roughness)
{
	for (size_t k = 0; k < BEARING_MODES; k++) {
		struct oscillator *o = &s->mode[k];
		double re = o->re * o->turn_re - o->im * o->turn_im;
		o->im = o->re * o->turn_im + o->im * o->turn_re;
		o->re = re + roughness * o->rough;
	}
}

/* Harmonics of the shaft, a tone of the coupling whose strength swings with the shaft, hum. */
static double tones(const struct signal *s, size_t i)
{
	const struct bearing_plant *p = s->plant;
	double sum = 0;
	for (size_t k = 0; k < BEARING_HARMONICS; k++)
		sum += p->harmonic[k] * sin((double)(k + 1) * s->angle + p->harmonic_phase[k]);
	sum += p->mesh * (1 + 0.3 * sin(s->angle)) * sin(p->mesh_order * s->angle);
	return sum + p->hum * sin(2 * PI * p->hum_hz * (double)i / s->rate);
}

static void modes_init(struct signal *s, enum bearing_place place)
{
	for (size_t k = 0; k < BEARING_MODES; k++) {
		const struct bearing_plant *p = s->plant;
		struct oscillator *o = &s->mode[k];
		double natural = 2 * PI * p->mode[k].hz, zeta = p->mode[k].damping;
		*o = (struct oscillator){
			.decay = zeta * natural, .omega = natural * sqrt(1 - zeta * zeta), .hz = p->mode[k].hz};
		/* A mode that this rate cannot show is cut by the anti-aliasing filter. */
		if (o->hz < 0.45 * s->rate) {
			o->gain = p->mode[k].from[place];
			/* Steady noise through a mode has the same level at any rate and damping. */
			o->rough = p->rough * p->mode[k].from_rough * sqrt(2 * o->decay / s->rate);
		}
		o->turn_re = exp(-o->decay / s->rate) * cos(o->omega / s->rate);
		o->turn_im = exp(-o->decay / s->rate) * sin(o->omega / s->rate);
	}
}

static void defect_init(struct signal *s, const struct bearing_config *config, const struct bearing_class *c)
{
	struct defect *d = &s->defect;
	const struct bearing_plant *p = s->plant;
	double order = bearing_order(c->place), pass = bearing_pass_seconds(c->mil, p->shaft_hz), size = c->mil / 7.0;
	*d = (struct defect){
		.place = c->place, .slip = p->slip, .jitter = p->jitter, .pass_seconds = pass, .exit_at = -1};
	d->next = INFINITY;
	if (order <= 0)
		return;
	d->interval = 2 * PI / order;
	d->next = s->angle + d->interval * rng_uniform(&s->events);
	/* No two bearings with "the same" fault are alike. */
	double individual = config->severity * rng_normal(&s->events);
	d->strength = impact_g * size * (1 + 0.08 * p->load_hp) * exp(0.04 * individual);
	d->entry_share = 0.25 + 0.15 * size;
	d->entry_seconds = 2 * pass;
	d->exit_seconds = 20e-6 + 0.9 * pass;
}

void bearing_generate(const struct bearing_config *config, int64_t number, const struct bearing_class *class,
		      float *out, size_t n)
{
	struct bearing_plant plant;
	bearing_plant_draw(config, number, &plant);
	struct signal s = {.plant = &plant, .rate = config->rate};
	rng_stream(&s.events, (uint64_t)config->seed, class->name, 2 * (uint64_t)number);
	rng_stream(&s.noise, (uint64_t)config->seed, class->name, 2 * (uint64_t)number + 1);
	s.angle = 2 * PI * rng_uniform(&s.events);
	modes_init(&s, class->place);
	defect_init(&s, config, class);
	const double keep = plant.noise_colour, fresh = plant.noise * sqrt(1 - keep * keep);
	const double smooth = 1 - exp(-2 * PI * plant.cutoff_hz / s.rate);
	s.torque = rng_normal(&s.noise);
	s.neighbours = rng_normal(&s.noise);
	for (size_t i = 0; i < n; i++) {
		double before = s.angle;
		if (i % SLOW == 0)
			operation_step(&s);
		s.angle += 2 * PI * plant.shaft_hz / s.rate * (1 - 0.004 * s.torque);
		modes_step(&s, s.loudness * rng_normal(&s.noise));
		defect_step(&s, i, before);
		double felt = 0;
		for (size_t k = 0; k < BEARING_MODES; k++)
			felt += s.mode[k].im;
		s.coloured = keep * s.coloured + fresh * rng_normal(&s.noise);
		s.filtered += smooth * (felt + tones(&s, i) - s.filtered);
		double g = plant.gain * (s.filtered + s.coloured);
		g = g > adc_max_g ? adc_max_g : g < -adc_max_g ? -adc_max_g : g;
		out[i] = (float)(rint(g / adc_step_g) * adc_step_g);
	}
}
