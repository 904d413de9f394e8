//! One suite that every store of ours passes, wrappers included. It is told a prefix in which it may do what it likes.
