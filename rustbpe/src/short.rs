//! A hash table for what nearly every piece of text is: a string of at most 15 bytes.
//!
//! Such a string, with its length, is one 128-bit integer ([`pack`]), so that a look-up hashes and
//! compares integers and follows no pointer. What it is not: a table for longer strings; keep a
//! second one for those.

/// The longest string that [`pack`] takes.
pub const MAX_BYTES: usize = 15;
/// The key of a free slot; no string packs to it, since its length would be 0.
const FREE: u128 = 0;

/// The bytes of `piece`, the length in the top byte; `None` if it is empty or too long.
#[inline]
pub fn pack(piece: &[u8]) -> Option<u128> {
    let n = piece.len();
    // Two overlapping reads of a fixed width beat a copy of n bytes.
    let bytes = match n {
        8..=MAX_BYTES => {
            let (first, last) = (piece.first_chunk::<8>()?, piece.last_chunk::<8>()?);
            u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << (8 * (n - 8))
        }
        4..=7 => {
            let (first, last) = (piece.first_chunk::<4>()?, piece.last_chunk::<4>()?);
            u128::from(
                u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (n - 4)),
            )
        }
        1..=3 => {
            let (first, middle, last) = (piece[0], piece[n / 2], piece[n - 1]);
            u128::from(
                u32::from(first) | u32::from(middle) << (8 * (n / 2)) | u32::from(last) << (8 * (n - 1)),
            )
        }
        _ => return None,
    };
    Some(bytes | (n as u128) << 120)
}

/// A packed string, taken apart again.
pub struct Unpacked([u8; 16]);

impl Unpacked {
    pub fn bytes(&self) -> &[u8] {
        &self.0[..self.0[MAX_BYTES] as usize]
    }
}

pub fn unpack(key: u128) -> Unpacked {
    Unpacked(key.to_le_bytes())
}

/// A well mixed 64 bits of a packed string.
#[inline]
pub fn hash(key: u128) -> u64 {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let product = u128::from(low ^ 0x9E37_79B9_7F4A_7C15) * u128::from(high ^ 0xD1B5_4A32_D192_ED03);
    (product as u64) ^ (product >> 64) as u64
}

/// Packed strings to values, in open addressing; it only grows.
pub struct Table<V> {
    slots: Vec<(u128, V)>,
    used: usize,
}

impl<V: Copy + Default> Default for Table<V> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<V: Copy + Default> Table<V> {
    /// Room for `n` entries without growing.
    pub fn with_capacity(n: usize) -> Self {
        Self { slots: vec![(FREE, V::default()); (2 * n).next_power_of_two().max(16)], used: 0 }
    }

    pub fn len(&self) -> usize {
        self.used
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The slot of `key`, or the free one where it belongs.
    #[inline]
    fn slot(&self, key: u128) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(key) as usize & mask;
        while self.slots[at].0 != key && self.slots[at].0 != FREE {
            at = (at + 1) & mask;
        }
        at
    }

    #[inline]
    pub fn get(&self, key: u128) -> Option<V> {
        let (found, value) = self.slots[self.slot(key)];
        (found == key).then_some(value)
    }

    /// The value of `key`, which is new with the default value if it was not there.
    #[inline]
    pub fn entry(&mut self, key: u128) -> &mut V {
        let mut at = self.slot(key);
        if self.slots[at].0 == FREE {
            if 2 * (self.used + 1) > self.slots.len() {
                self.grow();
                at = self.slot(key);
            }
            self.used += 1;
            self.slots[at].0 = key;
        }
        &mut self.slots[at].1
    }

    fn grow(&mut self) {
        let doubled = vec![(FREE, V::default()); 2 * self.slots.len()];
        for (key, value) in std::mem::replace(&mut self.slots, doubled) {
            if key != FREE {
                let at = self.slot(key);
                self.slots[at] = (key, value);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u128, V)> + '_ {
        self.slots.iter().filter(|slot| slot.0 != FREE).copied()
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_every_length_pack_apart_and_back() {
        let text: Vec<u8> = (0..40).map(|i| (i * i * 37 % 5) as u8).collect();
        let mut table = Table::with_capacity(0);
        let mut pieces: Vec<&[u8]> = (0..20)
            .flat_map(|start| (1..=MAX_BYTES).map(move |n| (start, n)))
            .map(|(s, n)| &text[s..s + n])
            .collect();
        pieces.sort_unstable();
        pieces.dedup();
        for (index, piece) in pieces.iter().enumerate() {
            let key = pack(piece).expect("short");
            assert_eq!(unpack(key).bytes(), *piece);
            *table.entry(key) = index;
        }
        assert_eq!(table.len(), pieces.len());
        assert!(pieces.iter().enumerate().all(|(i, p)| table.get(pack(p).expect("short")) == Some(i)));
        assert_eq!(table.iter().count(), pieces.len());
        assert!(pack(b"").is_none() && pack(&text[..16]).is_none());
        assert!(pack(b"\0").is_some_and(|key| table.get(key).is_some() || key != FREE));
    }
}
