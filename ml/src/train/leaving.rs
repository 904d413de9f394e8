//! For tests: a mesh whose workers are told to leave at some step.

use std::ops::Range;

use engine::gang::{GangError, Mesh, Offer, Part, Rank, Tag};

/// See the module.
pub(crate) struct Leaving<'a> {
    mesh: &'a mut dyn Mesh,
    at: u64,
    step: u64,
}

impl<'a> Leaving<'a> {
    pub(crate) fn at(mesh: &'a mut dyn Mesh, at: u64) -> Self {
        Leaving { mesh, at, step: 0 }
    }
}

impl Mesh for Leaving<'_> {
    fn rank(&self) -> Rank {
        self.mesh.rank()
    }
    fn world(&self) -> usize {
        self.mesh.world()
    }
    fn exchange(&mut self, tag: Tag, offer: Offer<'_>, receive: &mut dyn FnMut(&[Part<'_>])) -> Result<(), GangError> {
        self.step = tag.step;
        self.mesh.exchange(tag, offer, receive)
    }
    fn announce(&mut self, tag: Tag, offer: Offer<'_>, ready: usize) {
        self.mesh.announce(tag, offer, ready);
    }
    fn all_gather(&mut self, tag: Tag, vector: &mut [f32], cuts: &[Range<usize>]) -> Result<(), GangError> {
        self.step = tag.step;
        self.mesh.all_gather(tag, vector, cuts)
    }
    fn leaving(&self) -> bool {
        self.step >= self.at
    }
}
