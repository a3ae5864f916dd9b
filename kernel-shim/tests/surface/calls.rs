// SPDX-License-Identifier: MIT OR Apache-2.0

//! The calls themselves. Only paths of the kernel's crate, no `std`, no unsafe
//! code, so that the same file compiles in a module.

use kernel::alloc::{flags, kvec::PushError, AllocError, Flags};
use kernel::error::{code, to_result};
use kernel::prelude::*;
use kernel::rbtree::{
    Cursor, CursorMut, Entry, OccupiedEntry, RBTree, RBTreeNode, RBTreeNodeReservation,
};
use kernel::sync::{
    atomic::{ordering, Acquire, Atomic, Full, Relaxed, Release},
    barrier::{self, smp_mb},
    lock::{Backend, Guard, Lock},
    new_mutex, new_spinlock, Arc, ArcBorrow, LockedBy, Mutex, MutexGuard, SpinLock, SpinLockGuard,
    UniqueArc,
};
use kernel::transmute::{AsBytes, FromBytes};
use kernel::types::{NotThreadSafe, ScopeGuard};

static_assert!(size_of::<u64>() == 8);
static_assert!(size_of::<u32>() == 4, "four bytes");

macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            pr_err!("{} is false\n", stringify!($condition));
            return Err(EINVAL);
        }
    };
}

struct Inner {
    tree: RBTree<u64, KVec<u8>>,
    sum: u32,
}

#[pin_data(PinnedDrop)]
struct Outer<T: Copy> {
    id: T,
    #[pin]
    inner: SpinLock<Inner>,
    #[pin]
    mutex: Mutex<u32>,
    hits: Atomic<u64>,
    apart: LockedBy<KVec<u32>, Inner>,
    _thread: core::marker::PhantomData<fn() -> NotThreadSafe>,
}

#[pinned_drop]
impl<T: Copy> PinnedDrop for Outer<T> {
    fn drop(self: Pin<&mut Self>) {
        self.hits.add(1, Relaxed);
    }
}

impl<T: Copy> Outer<T> {
    fn new(id: T, owner: &SpinLock<Inner>) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                id,
                inner <- Inner::new(),
                mutex <- new_mutex!(3, "surface::mutex"),
                hits: Atomic::new(0),
                apart: LockedBy::new(owner, KVec::from_elem(1, 3, GFP_KERNEL)?),
                _thread: core::marker::PhantomData,
            }),
            GFP_KERNEL,
        )
    }

    fn locked(&self) -> SpinLockGuard<'_, Inner> {
        self.inner.lock()
    }

    fn mutexed(&self) -> MutexGuard<'_, u32> {
        self.mutex.lock()
    }
}

impl Inner {
    fn new() -> impl PinInit<SpinLock<Self>> {
        new_spinlock!(
            Inner {
                tree: RBTree::new(),
                sum: 0
            },
            "surface::inner"
        )
    }
}

fn any_lock<T, B: Backend>(lock: &Lock<T, B>, see: impl FnOnce(&Guard<'_, T, B>)) {
    see(&lock.lock());
}

fn vectors() -> Result {
    let flags: Flags = flags::GFP_KERNEL;
    check!(flags.contains(GFP_KERNEL));
    let mut v: KVec<u32> = KVec::new();
    v.reserve(4, flags)?;
    check!(v.capacity() >= 4);
    for i in 0..4 {
        v.push_within_capacity(i).map_err(|PushError(_)| ENOSPC)?;
    }
    v.push(4, GFP_KERNEL)?;
    v.extend_from_slice(&[5, 6], GFP_ATOMIC)?;
    v.extend_with(1, 7, GFP_NOWAIT)?;
    check!(v.len() == 8);
    check!(v.remove(0)? == 0 && v.pop() == Some(7));
    check!(v.remove(100).is_err());
    v.retain(|x| *x % 2 == 0);
    check!(v == [2, 4, 6]);
    v.resize(5, 9, GFP_KERNEL)?;
    v.truncate(4);
    v.insert_within_capacity(0, 1)?;
    for x in &mut v {
        *x += 1;
    }
    check!(v.as_slice() == [2, 3, 5, 7, 10]);
    v.as_mut_slice().reverse();
    check!(v[0] == 10 && v.iter().sum::<u32>() == 27);
    check!((&v).into_iter().count() == 5);
    check!(v.drain_all().count() == 5 && v.is_empty());
    v.clear();
    let v: VVec<u8> = VVec::zeroed(3, GFP_KERNEL_ACCOUNT)?;
    check!(v.into_iter().all(|b| b == 0));
    let v: KVVec<u8> = KVVec::with_capacity(3, GFP_KERNEL)?;
    check!(v.is_empty() && KVec::<u8>::default().is_empty());
    Ok(())
}

fn boxes() -> Result {
    let mut b = KBox::new(3u32, GFP_KERNEL)?;
    *b += 1;
    check!(KBox::into_inner(b) == 4);
    let b: KBox<core::mem::MaybeUninit<u32>> = KBox::new_uninit(GFP_KERNEL)?;
    check!(*b.write(5) == 5);
    let b: Pin<KBox<u32>> = KBox::pin(6, GFP_KERNEL)?;
    check!(*b == 6);
    let b: Pin<KBox<SpinLock<Inner>>> = KBox::pin_init(Inner::new(), GFP_KERNEL)?;
    b.lock().sum += 1;
    check!(b.lock().sum == 1);
    check!(*KBox::into_pin(KBox::new(7, GFP_KERNEL)?) == 7);
    Ok(())
}

fn shared() -> Result {
    let a: Arc<u32> = Arc::new(1, GFP_KERNEL)?;
    let b = a.clone();
    check!(Arc::ptr_eq(&a, &b) && Arc::as_ptr(&a) == Arc::as_ptr(&b));
    let borrow: ArcBorrow<'_, u32> = a.as_arc_borrow();
    let c: Arc<u32> = borrow.into();
    check!(*c + *borrow == 2);
    check!(Arc::into_unique_or_drop(b).is_none());
    drop(c);
    let mut unique = Arc::into_unique_or_drop(a).ok_or(EBUSY)?;
    *unique += 1;
    let shared: Arc<u32> = unique.into();
    check!(*shared == 2);
    let mut unique: UniqueArc<u32> = UniqueArc::new(5, GFP_KERNEL)?;
    *unique = 6;
    let shared: Arc<u32> = unique.into();
    check!(*shared == 6);
    let pinned: Pin<UniqueArc<SpinLock<Inner>>> = UniqueArc::pin_init(Inner::new(), GFP_KERNEL)?;
    let shared: Arc<SpinLock<Inner>> = pinned.into();
    check!(shared.lock().sum == 0);
    let memory = UniqueArc::<SpinLock<Inner>>::new_uninit(GFP_KERNEL)?;
    let pinned = memory.write_pin_init(Inner::new())?;
    check!(pinned.try_lock().is_some());
    Ok(())
}

fn locks() -> Result {
    let owner: Arc<SpinLock<Inner>> = Arc::pin_init(Inner::new(), GFP_KERNEL)?;
    let outer = Outer::new(7u16, &owner)?;
    check!(outer.id == 7);
    *outer.mutexed() += 1;
    check!(*outer.mutex.lock() == 4);
    outer.locked().sum = 1;
    any_lock(&outer.inner, |guard| pr_debug!("{}\n", guard.sum));
    any_lock(&outer.mutex, |guard| pr_debug!("{}\n", **guard));
    let mut held = owner.lock();
    outer.apart.access_mut(&mut held).push(2, GFP_KERNEL)?;
    check!(outer.apart.access(&held).len() == 4);
    let inner: &mut Inner = &mut held;
    inner
        .tree
        .try_create_and_insert(1, KVec::new(), GFP_KERNEL)?;
    inner.sum += 1;
    check!(held.as_mut().sum == 1);
    check!(core::ptr::eq(held.lock_ref(), &*owner));
    Ok(())
}

fn load<O: ordering::AcquireOrRelaxed>(x: &Atomic<u32>, order: O) -> u32 {
    x.load(order)
}

fn atomics() -> Result {
    let x = Atomic::new(0u32);
    x.store(1, Release);
    smp_mb(barrier::Full);
    smp_mb(barrier::Read);
    smp_mb(barrier::Write);
    check!(load(&x, Acquire) == 1 && load(&x, Relaxed) == 1);
    check!(x.xchg(2, Full) == 1);
    check!(x.cmpxchg(2, 3, Full) == Ok(2) && x.cmpxchg(2, 3, Relaxed) == Err(3));
    x.add(1, Relaxed);
    check!(x.fetch_add(1, Acquire) == 4 && x.fetch_sub(5, Release) == 5);
    check!(Atomic::new(5i64).fetch_add(-6, Full) == 5);
    check!(Atomic::new(1u64).load(Relaxed) == 1 && Atomic::new(1usize).load(Relaxed) == 1);
    check!(Atomic::new(-1i32).load(Acquire) == -1 && !Atomic::new(false).load(Acquire));
    Ok(())
}

fn trees() -> Result {
    let mut tree: RBTree<u32, u32> = RBTree::new();
    for key in [5, 1, 3] {
        check!(tree
            .insert(RBTreeNode::new(key, key * 10, GFP_KERNEL)?)
            .is_none());
    }
    let old = tree.try_create_and_insert(3, 31, GFP_KERNEL)?;
    check!(old.map(RBTreeNode::to_key_value) == Some((3, 30)));
    check!(tree.get(&3) == Some(&31) && !tree.is_empty());
    if let Some(value) = tree.get_mut(&3) {
        *value = 30;
    }
    let memory = RBTreeNodeReservation::new(GFP_KERNEL)?;
    match tree.entry(7) {
        Entry::Vacant(place) => check!(*place.insert(70, memory) == 70),
        Entry::Occupied(_) => return Err(EEXIST),
    }
    if let Entry::Occupied(mut node) = tree.entry(7) {
        *node.get_mut() += 1;
        check!(*node.get() == 71);
        *node.into_mut() -= 1;
    }
    check!(tree.keys().sum::<u32>() == 16 && tree.values().sum::<u32>() == 160);
    tree.values_mut().for_each(|value| *value += 1);
    for (_, value) in &mut tree {
        *value -= 1;
    }
    tree.iter_mut().for_each(|(_, value)| *value += 0);
    check!((&tree).into_iter().all(|(key, value)| key * 10 == *value));
    check!(tree.iter().count() == 4);

    let cursor: Cursor<'_, u32, u32> = tree.cursor_lower_bound(&2).ok_or(ENOENT)?;
    check!(cursor.current() == (&3, &30));
    check!(cursor.peek_prev() == Some((&1, &10)) && cursor.peek_next() == Some((&5, &50)));
    check!(tree.cursor_front().is_some() && tree.cursor_back().is_some());

    let mut cursor: CursorMut<'_, u32, u32> = tree.cursor_front_mut().ok_or(ENOENT)?;
    *cursor.current_mut().1 += 0;
    check!(cursor.peek_prev().is_none() && cursor.peek_prev_mut().is_none());
    check!(cursor.peek_next() == Some((&3, &30)) && cursor.peek_next_mut().is_some());
    cursor = cursor.move_next().ok_or(ENOENT)?;
    check!(cursor.remove_prev().map(|n| n.to_key_value().0) == Some(1));
    check!(cursor.remove_next().map(|n| n.to_key_value().0) == Some(5));
    let (next, node) = cursor.remove_current();
    let node = node.into_reservation().into_node(9, 90);
    check!(next.ok_or(ENOENT)?.move_prev().is_none());
    tree.insert(node);
    check!(tree.cursor_lower_bound_mut(&10).is_none());
    let (next, _) = tree.cursor_back_mut().ok_or(ENOENT)?.remove_current();
    check!(next.map(|c| *c.current().0) == Some(7));
    check!(tree.find_mut(&7).map(OccupiedEntry::remove) == Some(70));
    check!(tree.remove(&7).is_none() && tree.remove_node(&7).is_none());
    check!(tree.is_empty() && RBTree::<u8, u8>::default().is_empty());
    Ok(())
}

fn bytes() -> Result {
    fn bytes_of<T: AsBytes + FromBytes>(numbers: &mut [T]) -> &mut [u8] {
        numbers.as_bytes_mut()
    }
    let mut numbers: KVVec<u64> = KVVec::from_elem(0, 2, GFP_KERNEL)?;
    bytes_of(&mut numbers)[8..].copy_from_slice(&7_u64.to_ne_bytes());
    check!(numbers[..] == [0, 7] && numbers.as_bytes()[..8] == [0; 8]);
    Ok(())
}

fn errors() -> Result {
    check!(Error::from_errno(-22) == code::EINVAL && EINVAL.to_errno() == -22);
    check!(to_result(-12) == Err(ENOMEM) && Error::from(AllocError) == ENOMEM);
    let narrow = |n: u64| -> Result<u8> { Ok(u8::try_from(n)?) };
    check!(narrow(300) == Err(EINVAL) && narrow(30) == Ok(30));
    check!(EXFULL != EDQUOT && ERESTARTSYS.to_errno() == -512);
    let run = Atomic::new(0u32);
    {
        let mut guard = ScopeGuard::new_with_data(1, |n: u32| run.add(n, Relaxed));
        *guard += 1;
    }
    ScopeGuard::new(|| run.add(100, Relaxed)).dismiss();
    check!(run.load(Relaxed) == 2);
    Ok(())
}

/// Runs every call; `Err` where one of them does not do what it should.
pub(crate) fn run() -> Result {
    vectors()?;
    boxes()?;
    shared()?;
    locks()?;
    atomics()?;
    trees()?;
    bytes()?;
    errors()
}
