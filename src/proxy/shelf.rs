//! Memory of values that come and go in crowds, to be used again.
//!
//! An allocator keeps a few pieces of a size at hand and does book-keeping for the rest. A worker that has answered all
//! who were ready has dozens of one kind, which all end together.

use std::cell::RefCell;

/// Most boxes that wait for use: more than most turns of a worker need.
const KEPT: usize = 256;

/// One worker's boxes for values of one kind.
pub(super) struct Shelf<T>(RefCell<Vec<Box<Option<T>>>>);

/// A value in a box of a [`Shelf`]. Dropping it drops both.
pub(crate) struct Shelved<T>(Box<Option<T>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Shelf<T> {
    /// A value in a box.
    #[inline]
    pub(super) fn boxed(&self, value: T) -> Shelved<T> {
        let mut place = self.0.borrow_mut().pop().unwrap_or_default();
        *place = Some(value);
        Shelved(place)
    }

    /// Drops a value, and keeps its box. A panic of the drop takes the box along.
    #[inline]
    pub(super) fn end(&self, shelved: Shelved<T>) {
        let Shelved(mut place) = shelved;
        *place = None;
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT {
            free.push(place);
        }
    }
}

impl<T> Shelved<T> {
    /// The value, which is there until its end.
    #[inline]
    pub(super) fn value(&mut self) -> Option<&mut T> {
        (*self.0).as_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn an_ended_value_is_dropped_and_its_box_used_again() {
        let shelf = Shelf::default();
        let witness = Rc::new(());
        let first = shelf.boxed(Rc::clone(&witness));
        shelf.end(first);
        assert_eq!((Rc::strong_count(&witness), shelf.0.borrow().len()), (1, 1));
        let mut second = shelf.boxed(Rc::clone(&witness));
        assert_eq!((Rc::strong_count(&witness), shelf.0.borrow().len()), (2, 0));
        assert!(second.value().is_some());
    }

    #[test]
    fn only_so_many_boxes_are_kept() {
        let shelf = Shelf::default();
        let all: Vec<_> = (0..=KEPT).map(|number| shelf.boxed(number)).collect();
        all.into_iter().for_each(|shelved| shelf.end(shelved));
        assert_eq!(shelf.0.borrow().len(), KEPT);
    }
}
