//! Which of one talker's messages a member has: two words for each.

/// The highest number that came, and which of the 64 up to it did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    highest: u64,
    seen: u64,
}

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// After all before it, whether these came or not.
    New,
    /// For the first time, after later ones.
    Late,
    /// Again; or too far behind to tell.
    Again,
}

impl Window {
    /// Notes a message by its number: 1, 2, 3, …
    pub(super) fn take(&mut self, n: u64) -> Arrival {
        if n > self.highest {
            let step = u32::try_from(n - self.highest).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
            self.highest = n;
            return Arrival::New;
        }
        let bit = u32::try_from(self.highest - n).ok().and_then(|back| 1_u64.checked_shl(back));
        match bit {
            Some(bit) if n > 0 && self.seen & bit == 0 => {
                self.seen |= bit;
                Arrival::Late
            }
            _ => Arrival::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival::*, *};

    #[test]
    fn tells_new_late_and_doubled_ones_apart() {
        let mut window = Window::default();
        let arrivals = [1, 2, 2, 5, 3, 3, 6, 4, 1, 200, 6, 137, 136].map(|n| window.take(n));
        let expected = [New, New, Again, New, Late, Again, New, Late, Again, New, Again, Late, Again];
        assert_eq!(arrivals, expected);
        assert_eq!(window.take(0), Again, "there is no such number");
    }
}
