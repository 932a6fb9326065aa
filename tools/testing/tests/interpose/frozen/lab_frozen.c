// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps the queue of a disk frozen as long as it is loaded, as a driver does
 * that resets its device: what is submitted waits before the queue.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/module.h>

static char *disk;
module_param(disk, charp, 0444);

static struct file *file;

static int __init frozen_init(void)
{
	file = bdev_file_open_by_path(disk, BLK_OPEN_READ, NULL, NULL);
	if (IS_ERR(file))
		return PTR_ERR(file);
	blk_freeze_queue_start_non_owner(bdev_get_queue(file_bdev(file)));
	return 0;
}

static void __exit frozen_exit(void)
{
	blk_mq_unfreeze_queue_non_owner(bdev_get_queue(file_bdev(file)));
	fput(file);
}

module_init(frozen_init);
module_exit(frozen_exit);
MODULE_DESCRIPTION("a queue that is frozen for long");
MODULE_LICENSE("GPL");
