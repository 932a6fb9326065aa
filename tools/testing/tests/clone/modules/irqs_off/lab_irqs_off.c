// SPDX-License-Identifier: GPL-2.0
/*
 * Measures for how long at most the CPU took no interrupt: a timer is due each
 * PERIOD_NS, and how much too late it comes is what counts.
 */
#include <linux/hrtimer.h>
#include <linux/module.h>

#define PERIOD_NS	100000

/* Nanoseconds. Writing begins anew. */
static ulong longest;
module_param(longest, ulong, 0644);

static struct hrtimer timer;

static enum hrtimer_restart fires(struct hrtimer *timer)
{
	ktime_t now = hrtimer_cb_get_time(timer);
	s64 late = ktime_to_ns(ktime_sub(now, hrtimer_get_expires(timer)));

	if (late > 0 && late > READ_ONCE(longest))
		WRITE_ONCE(longest, late);
	hrtimer_forward(timer, now, PERIOD_NS);
	return HRTIMER_RESTART;
}

static int __init irqs_off_init(void)
{
	hrtimer_setup(&timer, fires, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED_HARD);
	hrtimer_start(&timer, PERIOD_NS, HRTIMER_MODE_REL_PINNED_HARD);
	return 0;
}

static void __exit irqs_off_exit(void)
{
	hrtimer_cancel(&timer);
}

module_init(irqs_off_init);
module_exit(irqs_off_exit);
MODULE_DESCRIPTION("how long interrupts are off");
MODULE_LICENSE("GPL");
