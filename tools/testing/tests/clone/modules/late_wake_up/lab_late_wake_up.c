// SPDX-License-Identifier: GPL-2.0
/*
 * The first time that a task named `comm` is about to wake others up, it stops
 * before it does, until what holds the wait queue is freed or PATIENCE_MS are over.
 */
#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait.h>

/* How long nothing may happen until it is sure that nothing will. */
#define PATIENCE_MS	1500

static char *comm = "";
module_param(comm, charp, 0444);
/* It stopped; and the wait queue was gone after that. */
static bool late, gone;
module_param(late, bool, 0444);
module_param(gone, bool, 0444);

/* The wait queue that is about to be woken. */
static void *about_to;

static int late_wake_up(struct wait_queue_head *head, unsigned int mode,
			int nr_exclusive, void *key)
{
	int i, woken;

	if (!xchg(&late, true)) {
		WRITE_ONCE(about_to, head);
		for (i = 0; i < PATIENCE_MS && !READ_ONCE(gone); i++) {
			if (preemptible())
				msleep(1);
			else
				mdelay(1);
		}
		WRITE_ONCE(about_to, NULL);
		if (READ_ONCE(gone))
			return 0;
	}
	woken = __wake_up(head, mode, nr_exclusive, key);
	/* No tail call: the hook knows by the caller's address that it is this one. */
	barrier();
	return woken;
}

static void notrace wake_up_instead(unsigned long ip, unsigned long parent_ip,
				    struct ftrace_ops *ops,
				    struct ftrace_regs *fregs)
{
	if (!strcmp(current->comm, comm) && !within_module(parent_ip, THIS_MODULE))
		ftrace_regs_set_instruction_pointer(fregs, (unsigned long)late_wake_up);
}

static void notrace look_at_freed(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	void *object = (void *)ftrace_regs_get_argument(fregs, 0);
	void *head = READ_ONCE(about_to);

	if (head && !ZERO_OR_NULL_PTR(object) && object <= head &&
	    head < object + ksize(object))
		WRITE_ONCE(gone, true);
}

static struct ftrace_ops wake_up_hook = {
	.func = wake_up_instead,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY,
};

static struct ftrace_ops free_hook = {
	.func = look_at_freed,
	.flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_RECURSION,
};

static int hook(struct ftrace_ops *ops, char *function)
{
	int ret = ftrace_set_filter(ops, function, strlen(function), 1);

	return ret ?: register_ftrace_function(ops);
}

static void unhook(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	ftrace_free_filter(ops);
}

static char free[] = "kfree";
static char wake_up[] = "__wake_up";

static int __init late_wake_up_init(void)
{
	int ret = hook(&free_hook, free);

	if (ret)
		return ret;
	ret = hook(&wake_up_hook, wake_up);
	if (ret)
		unhook(&free_hook);
	return ret;
}

static void __exit late_wake_up_exit(void)
{
	unhook(&wake_up_hook);
	unhook(&free_hook);
}

module_init(late_wake_up_init);
module_exit(late_wake_up_exit);
MODULE_DESCRIPTION("stops before it wakes others up");
MODULE_LICENSE("GPL");
