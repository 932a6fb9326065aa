// SPDX-License-Identifier: GPL-2.0
/*
 * While it is loaded, no work item gets memory from a slab behind a mempool, as
 * if there were none left: each has to do with what its mempool keeps in reserve.
 */
#include <linux/ftrace.h>
#include <linux/mempool.h>
#include <linux/module.h>
#include <linux/sched.h>

static unsigned long refused;
module_param(refused, ulong, 0444);

static void *no_memory(gfp_t gfp, void *cache)
{
	WRITE_ONCE(refused, refused + 1);
	return NULL;
}

static void notrace instead(unsigned long ip, unsigned long parent_ip,
			    struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	if (current->flags & PF_WQ_WORKER)
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)no_memory);
}

static struct ftrace_ops hook = {
	.func = instead,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static char function[] = "mempool_alloc_slab";

static int __init no_memory_init(void)
{
	int ret;

	ret = ftrace_set_filter(&hook, function, sizeof(function) - 1, 1);
	return ret ?: register_ftrace_function(&hook);
}

static void __exit no_memory_exit(void)
{
	unregister_ftrace_function(&hook);
	ftrace_free_filter(&hook);
}

module_init(no_memory_init);
module_exit(no_memory_exit);
MODULE_DESCRIPTION("no memory for mempools");
MODULE_LICENSE("GPL");
