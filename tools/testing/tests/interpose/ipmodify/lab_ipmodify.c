// SPDX-License-Identifier: GPL-2.0
/*
 * Sits where a live patch of submit_bio_noacct() would: the function tracer has
 * one such callback for a function, which may have it go on elsewhere. This one
 * does not; it is there, comes and goes.
 */
#include <linux/ftrace.h>
#include <linux/module.h>

static unsigned long calls;
module_param(calls, ulong, 0444);

static void notrace passing(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	WRITE_ONCE(calls, calls + 1);
}

static struct ftrace_ops like_a_live_patch = {
	.func = passing,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY |
		 FTRACE_OPS_FL_PERMANENT,
};

static char function[] = "submit_bio_noacct";

static int __init ipmodify_init(void)
{
	int ret;

	ret = ftrace_set_filter(&like_a_live_patch, function,
				sizeof(function) - 1, 1);
	return ret ?: register_ftrace_function(&like_a_live_patch);
}

static void __exit ipmodify_exit(void)
{
	unregister_ftrace_function(&like_a_live_patch);
	ftrace_free_filter(&like_a_live_patch);
}

module_init(ipmodify_init);
module_exit(ipmodify_exit);
MODULE_DESCRIPTION("a callback like that of a live patch");
MODULE_LICENSE("GPL");
