// SPDX-License-Identifier: GPL-2.0
/*
 * What Rust cannot call because the kernel has it only as a macro or an inline
 * function. Each helper does no more than its name says; a call costs a call,
 * so what always goes together is one helper.
 */
#include <linux/bio.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/crc32.h>
#include <linux/device-mapper.h>
#include <linux/kernfs.h>
#include <linux/kprobes.h>
#include <linux/mempool.h>
#include <linux/part_stat.h>
#include <linux/percpu-refcount.h>
#include <linux/random.h>
#include <linux/ratelimit.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/tracepoint.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <trace/events/block.h>
#include "dm.h"
#include "dm-space-map.h"

/* bindgen reads the definitions themselves; there is no header to share. */
#define HELPER __rust_helper

#ifndef __rust_helper
#define __rust_helper
#endif

#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* Spinlocks that interrupt handlers take too. */

HELPER unsigned long rust_dm_helper_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

HELPER bool rust_dm_helper_spin_trylock_irqsave(spinlock_t *lock,
						unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}

HELPER void rust_dm_helper_spin_unlock_irqrestore(spinlock_t *lock,
						  unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

HELPER void rust_dm_helper_spin_assert_is_held(spinlock_t *lock)
{
	lockdep_assert_held(lock);
}

/* Context. */

HELPER unsigned int rust_dm_helper_memalloc_noio_save(void)
{
	return memalloc_noio_save();
}

HELPER void rust_dm_helper_memalloc_noio_restore(unsigned int flags)
{
	memalloc_noio_restore(flags);
}

HELPER void rust_dm_helper_might_sleep(void)
{
	might_sleep();
}

HELPER void rust_dm_helper_cond_resched(void)
{
	cond_resched();
}

HELPER bool rust_dm_helper_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

/* Bios. */

HELPER void rust_dm_helper_bio_send(struct bio *bio, struct block_device *bdev,
				    sector_t sector, sector_t from)
{
	dev_t dev = bio->bi_bdev->bd_dev;

	bio_set_dev(bio, bdev);
	bio->bi_iter.bi_sector = sector;
	trace_block_bio_remap(bio, dev, from);
	submit_bio_noacct(bio);
}

/*
 * The set is that of file systems. To take from it is safe below them: a part comes back when its
 * device is done with it. Within a submission it must not be waited for, since parts of before are
 * not with their device yet.
 */
HELPER int rust_dm_helper_bio_send_part(struct bio *bio, unsigned int sectors,
					struct block_device *bdev,
					sector_t sector, sector_t from,
					gfp_t gfp)
{
	struct bio *part;

	part = bio_split(bio, sectors, gfp, &fs_bio_set);
	if (IS_ERR(part))
		return PTR_ERR(part);

	/* Nobody polls for a part, so nobody may have to for the rest. */
	bio_clear_polled(part);
	bio_clear_polled(bio);
	bio_chain(part, bio);
	rust_dm_helper_bio_send(part, bdev, sector, from);
	return 0;
}

HELPER void rust_dm_helper_bio_copy_out(struct bio *bio, unsigned int skip,
					void *to, unsigned int len)
{
	struct bvec_iter iter, start = bio->bi_iter;
	struct bio_vec bv;

	bio_advance_iter(bio, &start, skip);
	start.bi_size = len;
	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_from_bvec(to, &bv);
		to += bv.bv_len;
	}
}

/* The bio may be done: it is gone through by where it began. */
HELPER u32 rust_dm_helper_bio_crc32c(struct bio *bio, struct bvec_iter *began,
				     unsigned int skip, unsigned int len)
{
	struct bvec_iter iter, start = *began;
	struct bio_vec bv;
	u32 crc = ~0;

	bio_advance_iter(bio, &start, skip);
	start.bi_size = len;
	__bio_for_each_segment(bv, bio, iter, start) {
		void *data = bvec_kmap_local(&bv);

		crc = crc32c(crc, data, bv.bv_len);
		kunmap_local(data);
	}
	return ~crc;
}

/* The bio is done, and is to be sent again from where it began. */
HELPER void rust_dm_helper_bio_rewind(struct bio *bio,
				      const struct bvec_iter *began)
{
	bio->bi_iter = *began;
	bio->bi_status = BLK_STS_OK;
	/* If a device below has split it, the last part took the count to 0. */
	atomic_set(&bio->__bi_remaining, 1);
	/* Of the device that had it: the next one has other queues to poll, and other counts. */
	bio_clear_polled(bio);
	bio->bi_cookie = BLK_QC_T_NONE;
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
}

HELPER void rust_dm_helper_bio_copy_in(struct bio *bio, unsigned int skip,
				       const void *from, unsigned int len)
{
	struct bvec_iter iter, start = bio->bi_iter;
	struct bio_vec bv;

	bio_advance_iter(bio, &start, skip);
	start.bi_size = len;
	__bio_for_each_segment(bv, bio, iter, start) {
		memcpy_to_bvec(&bv, from);
		from += bv.bv_len;
	}
}

/*
 * As bio_send(), with these flags of the bio set: the sector counts from the
 * start of the disk, and a partition is not looked up again.
 */
HELPER void rust_dm_helper_bio_send_remapped(struct bio *bio,
					     struct block_device *bdev,
					     sector_t sector, sector_t from,
					     unsigned short flags)
{
	dev_t dev = bio->bi_bdev->bd_dev;

	bio_set_dev(bio, bdev);
	bio->bi_iter.bi_sector = sector;
	bio->bi_flags |= flags;
	trace_block_bio_remap(bio, dev, from);
	submit_bio_noacct(bio);
}

/* Block devices. */

HELPER unsigned int
rust_dm_helper_bdev_logical_block_size(struct block_device *bdev)
{
	return bdev_logical_block_size(bdev);
}

HELPER unsigned int
rust_dm_helper_bdev_max_discard_sectors(struct block_device *bdev)
{
	return bdev_max_discard_sectors(bdev);
}

HELPER const struct queue_limits *
rust_dm_helper_bdev_limits(struct block_device *bdev)
{
	return &bdev_get_queue(bdev)->limits;
}

HELPER bool rust_dm_helper_bdev_write_cache(struct block_device *bdev)
{
	return bdev_write_cache(bdev);
}

HELPER bool rust_dm_helper_bdev_nowait(struct block_device *bdev)
{
	return bdev_nowait(bdev);
}

HELPER bool rust_dm_helper_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

HELPER bool rust_dm_helper_bdev_stable_writes(struct block_device *bdev)
{
	return bdev_stable_writes(bdev);
}

HELPER bool rust_dm_helper_bdev_polls_bios(struct block_device *bdev)
{
	return bdev->bd_disk->fops->poll_bio &&
	       bdev_limits(bdev)->features & BLK_FEAT_POLL;
}

HELPER bool rust_dm_helper_bdev_is_zoned(struct block_device *bdev)
{
	return bdev_is_zoned(bdev);
}

HELPER bool rust_dm_helper_bdev_is_nvme_multipath(struct block_device *bdev)
{
	const struct gendisk *disk = bdev->bd_disk;

	/* Of the NVMe driver's disks only these take bios. */
	return disk->fops->submit_bio && !strncmp(disk->disk_name, "nvme", 4);
}

/* The devices that this one holds: how many, and the numbers of those for which there is room. */
HELPER size_t rust_dm_helper_bdev_slaves(struct block_device *bdev, dev_t *found,
					 size_t room)
{
	size_t count = 0;
#ifdef CONFIG_BLOCK_HOLDER_DEPRECATED
	struct gendisk *disk = bdev->bd_disk;
	struct kobject *slaves = NULL;
	struct class_dev_iter iter;
	struct kernfs_node *link;
	struct device *dev;

	/* Whoever removes the disk, open or not, takes the lock before it puts the folder. */
	mutex_lock(&disk->open_mutex);
	if (disk_live(disk))
		slaves = kobject_get(disk->slave_dir);
	mutex_unlock(&disk->open_mutex);
	if (!slaves)
		return 0;
	class_dev_iter_init(&iter, bdev->bd_device.class, NULL, NULL);
	while ((dev = class_dev_iter_next(&iter))) {
		link = kernfs_find_and_get(slaves->sd, dev_name(dev));
		if (!link)
			continue;
		kernfs_put(link);
		if (count < room)
			found[count] = dev->devt;
		count++;
	}
	class_dev_iter_exit(&iter);
	kobject_put(slaves);
#endif
	return count;
}

HELPER struct block_device *
rust_dm_helper_bdev_whole(struct block_device *bdev)
{
	return bdev_whole(bdev);
}

HELPER bool rust_dm_helper_bdev_is_partition(struct block_device *bdev)
{
	return bdev_is_partition(bdev);
}

HELPER bool rust_dm_helper_bdev_is_request_based(struct block_device *bdev)
{
	return queue_is_mq(bdev_get_queue(bdev));
}

HELPER bool rust_dm_helper_bdev_has_inline_crypto(struct block_device *bdev)
{
#ifdef CONFIG_BLK_INLINE_ENCRYPTION
	return bdev_get_queue(bdev)->crypto_profile;
#else
	return false;
#endif
}

HELPER bool rust_dm_helper_bdev_counts_inflight(struct block_device *bdev)
{
	/* Of the drivers of bios only this one asks. */
	return strncmp(bdev->bd_disk->disk_name, "md", 2) ||
	       blk_queue_io_stat(bdev_get_queue(bdev));
}

HELPER unsigned int
rust_dm_helper_bdev_count_inflight(struct block_device *bdev)
{
	return bdev_count_inflight(bdev);
}

HELPER unsigned int rust_dm_helper_bdev_busy_ms(struct block_device *bdev)
{
	return jiffies_to_msecs(part_stat_read(bdev, io_ticks));
}

/* What the device is known by wherever it is found; returns of which kind that is, or 0. */
HELPER unsigned int rust_dm_helper_bdev_identity(struct block_device *bdev,
						 char *id, unsigned int room,
						 unsigned int *len)
{
	static const enum blk_unique_id types[] = { BLK_UID_NAA, BLK_UID_EUI64,
						    BLK_UID_T10 };
	struct gendisk *disk = bdev->bd_disk;
	struct mapped_device *md;
	unsigned int kind;
	int r;

	if (room < DM_UUID_LEN)
		return 0;
	md = dm_get_md(bdev->bd_dev);
	if (md) {
		r = dm_copy_name_and_uuid(md, NULL, id);
		dm_put(md);
		*len = r ? 0 : strnlen(id, room);
		return *len ? 1 : 0;
	}
	if (bdev_is_partition(bdev)) {
		if (!bdev->bd_meta_info)
			return 0;
		*len = strnlen(bdev->bd_meta_info->uuid,
			       sizeof(bdev->bd_meta_info->uuid));
		memcpy(id, bdev->bd_meta_info->uuid, *len);
		return *len ? 2 : 0;
	}
	if (!disk->fops->get_unique_id)
		return 0;
	for (kind = 0; kind < ARRAY_SIZE(types); kind++) {
		r = disk->fops->get_unique_id(disk, id, types[kind]);
		if (r > 0 && r <= 16) {
			*len = r;
			return 3 + kind;
		}
	}
	return 0;
}

/* Freezing of a queue: what has entered it leaves, and nothing enters. */

HELPER void rust_dm_helper_bdev_freeze_queue_start(struct block_device *bdev)
{
	blk_freeze_queue_start(bdev_get_queue(bdev));
}

HELPER bool rust_dm_helper_bdev_freeze_queue_wait(struct block_device *bdev,
						  unsigned long jiffies)
{
	return blk_mq_freeze_queue_wait_timeout(bdev_get_queue(bdev), jiffies);
}

/* Somebody is about to enter the queue, and cannot as long as it is frozen. */
HELPER bool rust_dm_helper_bdev_has_waiters(struct block_device *bdev)
{
	/* Orders what the caller did before with the look at the list. */
	return wq_has_sleeper(&bdev_get_queue(bdev)->mq_freeze_wq);
}

static int note_wakeup(struct wait_queue_entry *entry, unsigned int mode,
		       int flags, void *key)
{
	entry->private = entry;
	return 0;
}

/*
 * Waits until each thread has gone to sleep once, or was asleep. Whether none did
 * so where bdev_has_waiters() looks: who is there stays, or is woken.
 */
HELPER bool rust_dm_helper_bdev_synchronize_submitters(struct block_device *bdev)
{
	struct wait_queue_head *waiters = &bdev_get_queue(bdev)->mq_freeze_wq;
	struct wait_queue_entry watch;
	bool alone;

	init_waitqueue_func_entry(&watch, note_wakeup);
	add_wait_queue(waiters, &watch);
	synchronize_rcu_tasks();
	spin_lock_irq(&waiters->lock);
	alone = !watch.private && list_is_singular(&waiters->head);
	__remove_wait_queue(waiters, &watch);
	spin_unlock_irq(&waiters->lock);
	return alone;
}

HELPER void rust_dm_helper_bdev_unfreeze_queue(struct block_device *bdev)
{
	blk_mq_unfreeze_queue_nomemrestore(bdev_get_queue(bdev));
}

/* Mapped devices, whose own header is not one that bindings are made of. */

HELPER void rust_dm_helper_dm_internal_suspend(struct mapped_device *md)
{
	dm_internal_suspend_noflush(md);
}

HELPER void rust_dm_helper_dm_internal_resume(struct mapped_device *md)
{
	dm_internal_resume(md);
}

/* Not to be interrupted by another thread; not traced, where tracing calls it. */

HELPER void rust_dm_helper_preempt_disable(void)
{
	preempt_disable_notrace();
}

HELPER void rust_dm_helper_preempt_enable(void)
{
	preempt_enable_notrace();
}

/* Counting, on each processor for itself. */

HELPER void rust_dm_helper_this_cpu_inc(u64 __percpu *count)
{
	this_cpu_inc(*count);
}

/* What comes before an addition that is in the sum has happened. */
HELPER u64 rust_dm_helper_percpu_sum(u64 __percpu *count)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*per_cpu_ptr(count, cpu));
	smp_mb();
	return sum;
}

/* Zeroed numbers of 64 bits, so many bytes for each processor. */
HELPER void __percpu *rust_dm_helper_percpu_alloc(size_t size)
{
	return __alloc_percpu(size, __alignof__(u64));
}

/* Where bios can be between submit_bio_noacct() and __submit_bio(). */

/* In the list of what a thread has still to hand on. */
HELPER bool rust_dm_helper_task_has_bios(struct task_struct *task)
{
	return READ_ONCE(task->bio_list);
}

/*
 * How many threads have bios in such a list; those for which there is room, with
 * a reference each.
 */
HELPER size_t rust_dm_helper_tasks_with_bios(struct task_struct **found,
					     size_t room)
{
	struct task_struct *process, *task;
	size_t count = 0;

	rcu_read_lock();
	for_each_process_thread(process, task) {
		if (!READ_ONCE(task->bio_list))
			continue;
		if (count < room)
			found[count] = get_task_struct(task);
		count++;
	}
	rcu_read_unlock();
	return count;
}

/*
 * In the throttle of the queue, if it has one; or, of a partition, with bcache,
 * or others who have claimed it and are no file system.
 */
HELPER bool rust_dm_helper_bdev_may_keep_bios(struct block_device *bdev)
{
#ifdef CONFIG_BLK_DEV_THROTTLING
	if (READ_ONCE(bdev_get_queue(bdev)->td))
		return true;
#endif
	return bdev_is_partition(bdev) && READ_ONCE(bdev->bd_holder) &&
	       !READ_ONCE(bdev->bd_holder_ops);
}

/* Where a function of the kernel is; a probe that is never armed finds that. */
HELPER int rust_dm_helper_function_address(const char *name,
					   unsigned long *address)
{
	struct kprobe probe = {
		.symbol_name = name,
		.flags = KPROBE_FLAG_DISABLED,
	};
	int error = register_kprobe(&probe);

	if (error)
		return error;
	*address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return 0;
}

/* The tracepoint of a bio's end. */

HELPER int rust_dm_helper_trace_bio_complete(void (*probe)(void *,
							   struct request_queue *,
							   struct bio *),
					     void *data)
{
	return register_trace_block_bio_complete(probe, data);
}

HELPER void rust_dm_helper_untrace_bio_complete(void (*probe)(void *,
							      struct request_queue *,
							      struct bio *),
						void *data)
{
	unregister_trace_block_bio_complete(probe, data);
	tracepoint_synchronize_unregister();
}

/* Until each probe of a tracepoint has returned that was running. */
HELPER void rust_dm_helper_tracepoint_synchronize(void)
{
	tracepoint_synchronize_unregister();
}

/* Memory. */

HELPER mempool_t *rust_dm_helper_mempool_create_kmalloc(int min_nr, size_t size)
{
	return mempool_create_kmalloc_pool(min_nr, size);
}

HELPER void *rust_dm_helper_mempool_alloc(mempool_t *pool, gfp_t gfp)
{
	return mempool_alloc(pool, gfp);
}

HELPER bool rust_dm_helper_virt_addr_valid(const void *addr)
{
	return virt_addr_valid(addr);
}

HELPER void rust_dm_helper_memcpy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

HELPER u32 rust_dm_helper_crc32c(u32 crc, const void *data, size_t len)
{
	return crc32c(crc, data, len);
}

HELPER void rust_dm_helper_get_random_bytes(void *to, size_t len)
{
	get_random_bytes(to, len);
}

/* Workqueues. */

HELPER struct workqueue_struct *
rust_dm_helper_alloc_workqueue(const char *name, unsigned int flags,
			       int max_active)
{
	return alloc_workqueue("%s", flags, max_active, name);
}

/* Logging. */

HELPER void rust_dm_helper_ratelimit_init(struct ratelimit_state *rs)
{
	ratelimit_default_init(rs);
}

HELPER bool rust_dm_helper_ratelimit(struct ratelimit_state *rs)
{
	return __ratelimit(rs);
}

/* Space maps are tables of functions behind inline wrappers. */

HELPER void rust_dm_helper_sm_destroy(struct dm_space_map *sm)
{
	dm_sm_destroy(sm);
}

HELPER int rust_dm_helper_sm_get_nr_blocks(struct dm_space_map *sm,
					   dm_block_t *count)
{
	return dm_sm_get_nr_blocks(sm, count);
}

HELPER int rust_dm_helper_sm_get_nr_free(struct dm_space_map *sm,
					 dm_block_t *count)
{
	return dm_sm_get_nr_free(sm, count);
}

HELPER int rust_dm_helper_sm_root_size(struct dm_space_map *sm, size_t *size)
{
	return dm_sm_root_size(sm, size);
}

HELPER int rust_dm_helper_sm_copy_root(struct dm_space_map *sm, void *to,
				       size_t len)
{
	return dm_sm_copy_root(sm, to, len);
}
