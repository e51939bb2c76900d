//! Cheap deterministic numbers: everything the simulator "chooses" is a pure function of its seed.

/// Scrambles one number into another that looks unrelated (the finalizer of splitmix64).
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Scrambles two numbers into one; the order matters.
pub(super) const fn mix2(first: u64, second: u64) -> u64 {
    mix(mix(first) ^ second)
}

/// A sequence of such numbers.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Starts the sequence that belongs to two numbers.
    pub(super) const fn new(first: u64, second: u64) -> Self {
        Self(mix2(first, second))
    }

    /// The next number.
    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; zero if `bound` is zero.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        let next = self.next();
        if bound == 0 { 0 } else { next % bound }
    }

    /// One of several things.
    pub(super) fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        let count = things.len() as u64;
        &things[usize::try_from(self.below(count)).unwrap_or(0)]
    }

    /// True in `percent` of a hundred cases.
    pub(super) const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
