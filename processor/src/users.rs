//! The users of one hour in one partition: an exact set up to a bound, then a sketch.

use std::collections::BTreeMap;

use millrace_contracts::{Exactness, SketchSwitch, UserHash, UserSketch};
use millrace_log::StageError;

use crate::registers::{Registers, rank};
use crate::scratch::{Extent, Scratch};
use crate::sorted_run::Run;
use crate::user_set::UserSet;

/// The approximate memory of one changed register.
const CHANGED_BYTES: usize = 8;

/// The users of one hour.
#[derive(Debug)]
pub(crate) enum Users {
    Set(Set),
    Sketch(Sketch),
}

/// An exact set: a run on disk and a delta in memory, disjoint. A hot hour has no run.
#[derive(Debug, Default)]
pub(crate) struct Set {
    pub(crate) run: Option<Run>,
    pub(crate) delta: UserSet,
}

/// The registers of a sketch. The hour's totals record what they stood for when the sketch replaced the set.
#[derive(Debug)]
pub(crate) struct Sketch(Storage);

#[derive(Debug)]
enum Storage {
    Memory(Registers),
    /// Packed on disk, with the registers that changed since in memory.
    Disk {
        extent: Extent,
        len: usize,
        changed: BTreeMap<u16, u8>,
    },
}

impl Default for Users {
    fn default() -> Self {
        Self::Set(Set::default())
    }
}

impl Users {
    pub(crate) fn exactness(&self) -> Exactness {
        match self {
            Self::Set(_) => Exactness::Exact,
            Self::Sketch(_) => Exactness::Approximate,
        }
    }

    /// Bytes of memory that [`Users::spill`] would free; `None` if that is not worth the writes, since a spill also rewrites
    /// the users on disk.
    pub(crate) fn spill_gain(&self, least_users: usize, least_share: usize) -> Option<usize> {
        match self {
            Self::Set(Set { run, delta }) => {
                let least = least_users.max(run.as_ref().map_or(0, Run::len) / least_share);
                (delta.len() > 0 && delta.len() >= least).then(|| delta.memory())
            }
            Self::Sketch(sketch) => sketch.in_memory().then_some(Registers::MEMORY),
        }
    }

    /// Moves the users in memory to disk.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        match self {
            Self::Set(set) => set.spill(scratch),
            Self::Sketch(sketch) => sketch.spill(scratch),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Set(Set { run, delta }) => delta.memory() + run.as_ref().map_or(0, Run::memory),
            Self::Sketch(Sketch(Storage::Memory(_))) => Registers::MEMORY,
            Self::Sketch(Sketch(Storage::Disk { changed, .. })) => changed.len() * CHANGED_BYTES,
        }
    }

    /// Frees the extent on disk.
    pub(crate) fn release(self, scratch: &mut Scratch) {
        match self {
            Self::Set(Set { run: Some(run), .. }) => run.release(scratch),
            Self::Sketch(Sketch(Storage::Disk { extent, .. })) => scratch.release(extent),
            Self::Set(_) | Self::Sketch(_) => {}
        }
    }
}

impl Set {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.delta.len() + self.run.as_ref().map_or(0, Run::len)
    }

    /// Inserts a user. Returns true if the user is new.
    #[inline]
    pub(crate) fn insert(&mut self, user: UserHash, scratch: &Scratch) -> Result<bool, StageError> {
        match &self.run {
            None => Ok(self.delta.insert(user)),
            Some(run) => Ok(!self.delta.contains(user) && !run.contains(scratch, user)? && self.delta.insert(user)),
        }
    }

    /// Visits every user by ascending hash.
    pub(crate) fn for_each(&self, scratch: &Scratch, mut each: impl FnMut(UserHash)) -> Result<(), StageError> {
        let mut all = Merge::new(self);
        while let Some(user) = all.next(scratch)? {
            each(UserHash::from_raw(user));
        }
        Ok(())
    }

    /// Moves the users in memory to disk.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        let mut all = Merge::new(self);
        let run = Run::write(scratch, self.len(), |scratch| all.next(scratch))?;
        self.delta = UserSet::default();
        if let Some(old) = self.run.replace(run) {
            old.release(scratch);
        }
        Ok(())
    }

    /// The sketch of these users, with the exact count and the estimate at the switch.
    pub(crate) fn to_sketch(&self, scratch: &Scratch) -> Result<(Sketch, SketchSwitch), StageError> {
        let mut registers = Registers::default();
        if let Some(run) = &self.run {
            let mut cursor = run.cursor();
            while let Some(user) = cursor.next(scratch)? {
                registers.add(UserHash::from_raw(user));
            }
        }
        self.delta.iter().for_each(|user| registers.add(user));
        let sketched = SketchSwitch { exact_users: self.len() as u64, estimate: registers.estimate() };
        Ok((Sketch(Storage::Memory(registers)), sketched))
    }
}

/// Merges run and delta into one ascending sequence.
struct Merge<'a> {
    run: Option<crate::sorted_run::Cursor<'a>>,
    /// The next hash of the run.
    head: Option<u64>,
    delta: std::iter::Peekable<std::vec::IntoIter<u64>>,
}

impl<'a> Merge<'a> {
    fn new(set: &'a Set) -> Self {
        let delta = set.delta.sorted().into_iter().peekable();
        Self { run: set.run.as_ref().map(Run::cursor), head: None, delta }
    }

    fn next(&mut self, scratch: &Scratch) -> Result<Option<u64>, StageError> {
        if self.head.is_none()
            && let Some(run) = &mut self.run
        {
            self.head = run.next(scratch)?;
        }
        Ok(match (self.head, self.delta.peek()) {
            (Some(head), Some(&delta)) if delta < head => self.delta.next(),
            (None, _) => self.delta.next(),
            (Some(_), _) => self.head.take(),
        })
    }
}

impl Sketch {
    /// Inserts a user. Returns the register that increased, with its previous value.
    pub(crate) fn insert(&mut self, user: UserHash, scratch: &Scratch) -> Result<Option<(u16, u8)>, StageError> {
        let (number, value) = rank(user);
        self.raise(number, value, scratch)
    }

    /// Raises a register. Returns it with its previous value if it increased.
    pub(crate) fn raise(&mut self, number: u16, value: u8, scratch: &Scratch) -> Result<Option<(u16, u8)>, StageError> {
        match &mut self.0 {
            Storage::Memory(registers) => {
                let before = registers.get(number);
                Ok(registers.raise(number, value).then_some((number, before)))
            }
            Storage::Disk { extent, len, changed } => {
                let before = match changed.get(&number) {
                    Some(&value) => value,
                    None => register_on_disk(scratch, extent, *len, number)?,
                };
                let raised = before < value;
                if raised {
                    changed.insert(number, value);
                }
                Ok(raised.then_some((number, before)))
            }
        }
    }

    /// Undoes the changes of a step, given in order.
    pub(crate) fn undo(&mut self, raised: &[(u16, u8)]) {
        match &mut self.0 {
            Storage::Memory(registers) => {
                raised.iter().rev().for_each(|&(number, before)| registers.set(number, before));
            }
            // Earlier changes were written to disk before the step.
            Storage::Disk { changed, .. } => changed.clear(),
        }
    }

    /// The estimated number of distinct users.
    pub(crate) fn estimate(&self, scratch: &Scratch) -> Result<u64, StageError> {
        match &self.0 {
            Storage::Memory(registers) => Ok(registers.estimate()),
            Storage::Disk { .. } => Ok(self.registers(scratch)?.estimate()),
        }
    }

    pub(crate) fn in_memory(&self) -> bool {
        matches!(self.0, Storage::Memory(_))
    }

    /// The current registers.
    pub(crate) fn registers(&self, scratch: &Scratch) -> Result<Registers, StageError> {
        match &self.0 {
            Storage::Memory(registers) => Ok(registers.clone()),
            Storage::Disk { extent, len, changed } => {
                let mut packed = vec![0; *len];
                scratch.read(extent, 0, &mut packed)?;
                let mut registers = Registers::default();
                let stored = UserSketch::unpack(&packed)
                    .map_err(|error| StageError::unavailable(error.to_string()).because(error))?;
                stored
                    .chain(changed.iter().map(|(&number, &value)| (number, value)))
                    .for_each(|(number, value)| registers.set(number, value));
                Ok(registers)
            }
        }
    }

    /// Moves the registers, or their changes, to disk.
    pub(crate) fn spill(&mut self, scratch: &mut Scratch) -> Result<(), StageError> {
        if matches!(&self.0, Storage::Disk { changed, .. } if changed.is_empty()) {
            return Ok(());
        }
        let mut packed = Vec::new();
        UserSketch::pack(self.registers(scratch)?.as_array(), &mut packed);
        let extent = scratch.allocate(packed.len())?;
        scratch.write(&extent, 0, &packed)?;
        let storage = Storage::Disk { extent, len: packed.len(), changed: BTreeMap::new() };
        if let Storage::Disk { extent, .. } = std::mem::replace(&mut self.0, storage) {
            scratch.release(extent);
        }
        Ok(())
    }
}

fn register_on_disk(scratch: &Scratch, extent: &Extent, len: usize, number: u16) -> Result<u8, StageError> {
    if len == UserSketch::REGISTERS {
        let mut register = [0];
        scratch.read(extent, usize::from(number), &mut register)?;
        return Ok(register[0]);
    }
    let mut packed = [0; UserSketch::REGISTERS];
    let packed = &mut packed[..len];
    scratch.read(extent, 0, packed)?;
    let triples = packed.as_chunks::<3>().0;
    let found = triples.binary_search_by_key(&number, |triple| u16::from_le_bytes([triple[0], triple[1]]));
    Ok(found.map_or(0, |at| triples[at][2]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    fn hash(user: u32) -> UserHash {
        UserHash::of(&user.to_string())
    }

    proptest! {
        #[test]
        fn spills_do_not_change_the_users(users in prop::collection::vec((0..600_u32, 0..20_u8), 1..800)) {
            let mut scratch = Scratch::new(PathBuf::new());
            let (mut set, mut all) = (Set::default(), HashSet::new());
            for &(user, chance) in &users {
                prop_assert_eq!(set.insert(hash(user), &scratch).unwrap(), all.insert(user));
                if chance == 0 {
                    set.spill(&mut scratch).unwrap();
                }
            }
            prop_assert_eq!(set.len(), all.len());
            let mut sorted = Vec::new();
            set.for_each(&scratch, |user| sorted.push(user.get())).unwrap();
            prop_assert!(sorted.is_sorted() && sorted.len() == all.len());

            let ((mut spilled, sketched), mut sketch) = (set.to_sketch(&scratch).unwrap(), Set::default().to_sketch(&scratch).unwrap().0);
            for &(user, chance) in &users {
                let _ = sketch.insert(hash(user), &scratch).unwrap();
                if chance == 0 {
                    sketch.spill(&mut scratch).unwrap();
                }
                let raised = spilled.insert(hash(user), &scratch).unwrap();
                prop_assert_eq!(raised, None);
            }
            prop_assert_eq!(sketch.estimate(&scratch).unwrap(), sketched.estimate);
            prop_assert_eq!(sketched.exact_users, all.len() as u64);
            let (one, other) = (sketch.registers(&scratch).unwrap(), spilled.registers(&scratch).unwrap());
            prop_assert!(one.as_array() == other.as_array());

            // Undo of a step.
            for (mut sketch, disk) in [(sketch, true), (spilled, false)] {
                if disk {
                    sketch.spill(&mut scratch).unwrap();
                }
                let before = sketch.registers(&scratch).unwrap();
                let raised: Vec<_> = (1_000..9_000).filter_map(|user| sketch.insert(hash(user), &scratch).unwrap()).collect();
                prop_assert!(sketch.estimate(&scratch).unwrap() > before.estimate() && !raised.is_empty());
                sketch.undo(&raised);
                prop_assert!(sketch.registers(&scratch).unwrap().as_array() == before.as_array());
            }
        }
    }
}
