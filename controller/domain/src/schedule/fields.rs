//! What is wrong with the five fields of a schedule, in words for the person who wrote them.
//!
//! The parser of the schedules takes more than crontab(5) says, and takes forms that never do what
//! they seem to say, such as `*/70`. Whatever passes here is the parser's to read.

/// A field of crontab(5), with the values that it takes.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names for values, from the first one on.
    names: &'static [&'static str],
    /// Whether a value may have this form besides a number or a name: days have some.
    is_special: fn(&str) -> bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[], is_special: |_| false },
    Field { name: "hour", first: 0, last: 23, names: &[], is_special: |_| false },
    Field { name: "day of the month", first: 1, last: 31, names: &[], is_special: is_special_date },
    Field { name: "month", first: 1, last: 12, names: &MONTHS, is_special: |_| false },
    Field { name: "day of the week", first: 0, last: 7, names: &DAYS, is_special: is_special_day },
];

/// What crontab(5) has names for, and what to write here.
const MACROS: [(&str, &str); 8] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
    ("@reboot", "0 3 * * *"),
];

/// Checks the five fields of an expression.
///
/// # Errors
/// What is wrong with the first field that is wrong, and what to write.
pub(super) fn check(expression: &str) -> Result<(), String> {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    if let [word] = fields[..]
        && word.starts_with('@')
    {
        let known = MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let fields = known.map_or("0 3 * * *", |(_, fields)| fields);
        return Err(format!("names for schedules are not known here; write the five fields: {fields:?}"));
    }
    if fields.len() != FIELDS.len() {
        let count = fields.len();
        return Err(format!(
            "it has {count} fields, and needs the five fields of crontab (minute, hour, day of the month, month, \
             day of the week), such as \"0 3 * * *\""
        ));
    }
    FIELDS
        .iter()
        .zip(fields)
        .try_for_each(|(field, text)| field.check(text).map_err(|why| format!("{}: {why}", field.name)))
}

impl Field {
    fn check(&self, text: &str) -> Result<(), String> {
        text.split(',').try_for_each(|part| self.check_part(part))
    }

    fn check_part(&self, part: &str) -> Result<(), String> {
        let (values, step) = part.split_once('/').map_or((part, None), |(values, step)| (values, Some(step)));
        if let Some(step) = step {
            self.check_step(step)?;
        }
        if values == "*" || (self.is_special)(values) {
            return Ok(());
        }
        let Some((first, last)) = values.split_once('-') else {
            self.value(values)?;
            return step.map_or(Ok(()), |step| {
                Err(format!("{part} has a step and no range: write {values}-{}/{step}", self.last))
            });
        };
        if self.value(first)? > self.value(last)? {
            return Err(format!(
                "the range {first}-{last} goes backwards: write two ranges, such as {first}-{},{}-{last}",
                self.last, self.first
            ));
        }
        Ok(())
    }

    fn check_step(&self, step: &str) -> Result<(), String> {
        let is_number = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number {
            return Err(format!("{step:?} is not a step: write a number after the slash, such as */5"));
        }
        // So many digits are a number that is too large in any case.
        let length = step.parse().unwrap_or(u32::MAX);
        let longest = self.last - self.first;
        if length == 0 {
            return Err("a step of 0 never goes on: the shortest step is 1".into());
        }
        if length > longest {
            return Err(format!(
                "a step of {step} is longer than the field: {longest} is the longest, and one value such as {} needs \
                 no step",
                self.first
            ));
        }
        Ok(())
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        if let Some(place) = named.and_then(|place| u32::try_from(place).ok()) {
            // The names of days begin with 0, those of months with 1, as their numbers do.
            return Ok(self.first + place);
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            let name = self.names.get(1).map(|name| format!(" or a name such as {name}")).unwrap_or_default();
            return Err(format!("{text:?} is not a number{name}"));
        }
        let value = text.parse().unwrap_or(u32::MAX);
        if (self.first..=self.last).contains(&value) {
            return Ok(value);
        }
        Err(format!("{text} is not from {} to {}", self.first, self.last))
    }
}

/// `?` for any day, `L` for the last one, `15W` for the working day that is nearest.
fn is_special_date(text: &str) -> bool {
    let date = text.strip_suffix(['W', 'w']).and_then(|date| date.parse::<u32>().ok());
    matches!(text, "?" | "L" | "l") || date.is_some_and(|date| (1..=31).contains(&date))
}

/// `?` for any day, `5L` for the last Friday of a month, `MON#2` for the second Monday, `+` before
/// a day for one that must fit with the day of the month.
fn is_special_day(text: &str) -> bool {
    let day = text.strip_prefix('+').unwrap_or(text);
    let day = day
        .strip_suffix(['L', 'l'])
        .or_else(|| day.split_once('#').filter(|(_, nth)| is_nth(nth)).map(|(day, _)| day))
        .unwrap_or(day);
    let is_number = day.len() == 1 && matches!(day.as_bytes()[0], b'0'..=b'7');
    text == "?" || (day != text && (is_number || DAYS.iter().any(|name| name.eq_ignore_ascii_case(day))))
}

fn is_nth(text: &str) -> bool {
    matches!(text, "1" | "2" | "3" | "4" | "5" | "L" | "l")
}
