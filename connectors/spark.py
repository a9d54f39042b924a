"""One local Spark session with Delta, tuned for batches of minutes on few cores.

What matters here, each measured on two cores: a serial collector and the first compiler tier only (short jobs never
repay the second), few partitions, no UI, exactly two jars. A cluster gives its own settings through `overrides`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.endpoints import endpoints
from connectors.jars import jar_paths, spark_java_home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Duser.timezone=UTC",
    "-Dlog4j2.configurationFile=file:{log_settings}",
)


def session(app_name: str, overrides: Mapping[str, str] | None = None) -> SparkSession:
    """The process's session; started at the first call (about 10 s), shared after it. Stop it with `.stop()`.

    Errors: NotSetUp when the jars or Java are missing.
    """
    from pyspark.sql import SparkSession

    work = endpoints().home / "spark"
    work.mkdir(parents=True, exist_ok=True)
    os.environ["JAVA_HOME"] = str(spark_java_home())
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = endpoints().host
    os.environ["SPARK_CONF_DIR"] = str(work / "no-conf")  # everything is said here
    settings = _settings(work) | dict(overrides or {})
    builder = SparkSession.builder.appName(app_name).master(settings.pop("spark.master", "local[2]"))
    for name, value in settings.items():
        builder = builder.config(name, value)
    logging.getLogger("py4j").setLevel(logging.WARNING)
    return builder.getOrCreate()


def _settings(work: Path) -> dict[str, str]:
    return {
        "spark.driver.extraClassPath": os.pathsep.join(str(path) for path in jar_paths("spark")),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": " ".join(_JVM_OPTIONS).format(log_settings=_log_settings(work)),
        "spark.driver.bindAddress": endpoints().host,
        "spark.driver.host": endpoints().host,
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(work),
        "spark.sql.warehouse.dir": str(work / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.default.parallelism": "2",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.databricks.delta.stats.collect": "true",
        "spark.shuffle.compress": "false",
    }


def _log_settings(work: Path) -> Path:
    """A log4j file that says one thing: errors, to stderr."""
    text = (
        "rootLogger.level = warn\n"  # Spark's own default, or it says on every start that it changes it
        "rootLogger.appenderRef.console.ref = console\n"
        "appender.console.type = Console\n"
        "appender.console.name = console\n"
        "appender.console.target = SYSTEM_ERR\n"
        "appender.console.filter.level.type = ThresholdFilter\n"
        "appender.console.filter.level.level = error\n"
        "appender.console.layout.type = PatternLayout\n"
        "appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex\n"
    )
    target = work / "log4j2.properties"
    if not target.is_file() or target.read_text() != text:
        target.write_text(text)
    return target
