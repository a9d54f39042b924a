"""Our Java for Flink called directly from Python, package-private parts included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from connectors.flink.java_jar import Source, compiled_jar, sources
from connectors.flink.session import streaming_session
from jobs.streaming.own_java import own_java


class FlinkJava:
    """Our classes in this process's JVM, `more` sources beside them. A list of Python is made an array by `array`."""

    def __init__(self, more: Iterable[Source] = ()) -> None:
        streaming_session({}, own_java())
        from pyflink.java_gateway import get_gateway

        self._gateway = get_gateway()
        self.jvm: Any = self._gateway.jvm
        self._loader = self.jvm.java.lang.ClassLoader.getSystemClassLoader()
        if beside := tuple(more):  # ours once more: what is private to the package is so by class loader
            jar = compiled_jar((*sources("connectors.flink"), *own_java(), *beside))
            url = self.jvm.java.io.File(str(jar.resolve())).toURI().toURL()
            util = self.jvm.org.apache.flink.util
            self._loader = util.ChildFirstClassLoader(
                self.array(self.jvm.java.net.URL, [url]),
                self._loader,
                self.array(self.jvm.String, ["java.", "org.apache."]),
                util.FlinkUserCodeClassLoader.NOOP_EXCEPTION_HANDLER,
            )

    def array(self, kind: Any, items: Sequence[Any]) -> Any:
        made = self._gateway.new_array(kind, len(items))
        for i, item in enumerate(items):
            made[i] = item
        return made

    def new(self, name: str, *arguments: Any) -> Any:
        """An object of class headwater.`name`, by its constructor with so many arguments."""
        constructors = self._class(name).getDeclaredConstructors()
        constructor = next(c for c in constructors if c.getParameterCount() == len(arguments))
        constructor.setAccessible(True)
        return constructor.newInstance(self.array(self.jvm.Object, arguments))

    def call(self, name: str, method: str, this: Any, *arguments: Any) -> Any:
        """What `method` of class headwater.`name` with so many arguments gives; `this` is None for a static one."""
        methods = self._class(name).getDeclaredMethods()
        found = next(m for m in methods if m.getName() == method and m.getParameterCount() == len(arguments))
        found.setAccessible(True)
        return found.invoke(this, self.array(self.jvm.Object, arguments))

    def field(self, name: str, field: str, this: Any) -> Any:
        """A field of an object of class headwater.`name`."""
        found = self._class(name).getDeclaredField(field)
        found.setAccessible(True)
        return found.get(this)

    def _class(self, name: str) -> Any:
        return self._loader.loadClass(f"headwater.{name}")
