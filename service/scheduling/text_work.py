"""Class names on their way through the text tower, in steps that hold a device for a moment each.

Names of all requests that want the same templates go together, and a name that several want goes once. A
block of names may need several steps, each with some of the templates.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

from torch import Tensor

from service.scheduling.deadline import Deadline
from service.scheduling.delivery import CompletionQueue, Waiting
from service.scheduling.engine import Engine, unit_rows

Key = tuple[float, int]
# Names of a block whose templates do not all fit into one step: what a template's prompts begin with is read
# once a step, and so once for so many names.
_NAMES_AT_ONCE = 16


class TextRequest(Waiting[Tensor]):
    """Names to be embedded; answered with unit rows, float32 [K, C], on the CPU.

    Args:
        completions: of the running event loop.
        engines: of the version whose tower counts, one a device.
        names: K of them, each once.
        templates: prompts holding "{}" for the name.
        tokens: of each name, of all templates together.
        deadline: decides whose turn it is; only cancelling takes names back.
        ageing_s: after this long, it goes before all that came later.

    Attributes:
        number: order of arrival, given by the queue.
        steps: that worked for it.
        rows: of the names that are done.
    """

    def __init__(
        self,
        completions: CompletionQueue,
        engines: tuple[Engine, ...],
        names: Sequence[str],
        templates: tuple[str, ...],
        tokens: Sequence[int],
        deadline: Deadline,
        ageing_s: float,
    ):
        super().__init__(completions)
        self.engines = engines
        self.names = list(names)
        self.templates = templates
        self.tokens = list(tokens)
        self.urgency = min(deadline.at, self.submitted + ageing_s)
        self.number = 0
        self.steps = 0
        self.rows: dict[str, Tensor] = {}
        self.begun = 0  # so many of its first names are in blocks, or done

    @property
    def key(self) -> Key:
        """Its place in the line."""
        return self.urgency, self.number


class TextName:
    """One name, who waits for it, and whether it is in a block."""

    def __init__(self, name: str, tokens: int):
        self.name = name
        self.tokens = tokens
        self.wanted: list[TextRequest] = []
        self.begun = False


class TextBlock:
    """Names that go through the tower together.

    Attributes:
        engines: of the version.
        templates: all that there are.
        names: at least one.
        done: how many of the templates went through.
        total: sum of the unit embeddings of these, [n, C]; None before the first step.
    """

    def __init__(self, engines: tuple[Engine, ...], templates: tuple[str, ...], names: list[TextName]):
        self.engines = engines
        self.templates = templates
        self.names = names
        self.done = 0
        self.total: Tensor | None = None

    def requests(self) -> Iterator[TextRequest]:
        """Who waits for any of its names, some of them several times."""
        for name in self.names:
            yield from name.wanted

    def prune(self) -> None:
        """Lets go of names that nobody wants any more."""
        kept = [index for index, name in enumerate(self.names) if name.wanted]
        if len(kept) < len(self.names):
            self.names = [self.names[index] for index in kept]
            self.total = None if self.total is None else self.total[kept]

    def halves(self) -> "list[TextBlock]":
        """The same work in two blocks."""
        middle = (len(self.names) + 1) // 2
        parts = []
        for part in (slice(middle), slice(middle, None)):
            half = TextBlock(self.engines, self.templates, self.names[part])
            half.done = self.done
            half.total = None if self.total is None else self.total[part]
            parts.append(half)
        return parts

    def add(self, means: Tensor, templates: int) -> Tensor | None:
        """Takes in the means over some templates; unit rows [n, C] once all went through."""
        if templates == len(self.templates):
            return unit_rows(means)
        part = means * templates
        self.total = part if self.total is None else self.total + part
        self.done += templates
        return unit_rows(self.total) if self.done == len(self.templates) else None


class TextLine:
    """Names that wait for a device. Knows of no thread; its owner holds a lock around it."""

    def __init__(self) -> None:
        self._requests: list[TextRequest] = []  # that have names in no block, by key
        self._blocks: list[TextBlock] = []  # begun, and not running
        self._names: dict[tuple[int, tuple[str, ...], str], TextName] = {}  # not done

    def add(self, request: TextRequest) -> None:
        """Puts a request where it belongs."""
        for name, tokens in zip(request.names, request.tokens, strict=True):
            place = self._place(request, name)
            self._names.setdefault(place, TextName(name, tokens)).wanted.append(request)
        if next(self._unbegun(request), None) is not None:  # else they all are on their way for others
            insort(self._requests, request, key=attrgetter("key"))

    def discard(self, request: TextRequest) -> None:
        """Takes a request out, and its names where nobody else wants them."""
        at = bisect_left(self._requests, request.key, key=attrgetter("key"))
        if at < len(self._requests) and self._requests[at] is request:
            del self._requests[at]
        for name in request.names:
            wanted = self._names.get(self._place(request, name))
            if wanted is not None and request in wanted.wanted:
                wanted.wanted.remove(request)
                if not wanted.wanted:
                    del self._names[self._place(request, name)]
        for block in self._blocks:
            block.prune()
        self._blocks = [block for block in self._blocks if block.names]

    def head(self, due: bool) -> Key | None:
        """The place of what `take` would give; None if there is nothing.

        Args:
            due: whether it is the turn of those that had a step already, too.
        """
        chosen = self._choose(due)
        return None if chosen is None else chosen[0]

    def take(
        self, due: bool, chunk: Callable[[tuple[Engine, ...]], int]
    ) -> tuple[TextBlock, tuple[str, ...]]:
        """The block whose turn it is, and which of its templates; it is out of the line until `put_back`.

        Args:
            due: as for `head`, which must have found something.
            chunk: tokens that a step of a version may have.
        """
        chosen = self._choose(due)
        assert chosen is not None
        block = chosen[1]
        most = chunk(block.engines)
        if isinstance(block, TextRequest):
            block = self._form(block, due, most)
        else:
            self._blocks.remove(block)
        for request in set(block.requests()):
            request.steps += 1
        once = sum(name.tokens for name in block.names) / len(block.templates)
        count = max(1, int(most / max(once, 1e-9)))
        return block, block.templates[block.done : block.done + count]

    def put_back(self, block: TextBlock) -> None:
        """Puts a block back, for its next step."""
        block.prune()
        if block.names:
            self._blocks.append(block)

    def finish(self, block: TextBlock, rows: Tensor) -> list[TextRequest]:
        """Hands out the rows of a block that is done; the requests that now have all of theirs."""
        complete = []
        for name, row in zip(block.names, rows, strict=True):
            for request in self._done(block, name):
                request.rows[name.name] = row
                if len(request.rows) == len(request.names):
                    complete.append(request)
        return complete

    def fail(self, block: TextBlock) -> list[TextRequest]:
        """Takes out those that wait for a block which cannot be embedded."""
        failed = list(dict.fromkeys(block.requests()))
        for request in failed:
            self.discard(request)
        return failed

    def _done(self, block: TextBlock, name: TextName) -> list[TextRequest]:
        if name.wanted:
            del self._names[id(block.engines[0]), block.templates, name.name]
        wanted, name.wanted = name.wanted, []
        return wanted

    def _choose(self, due: bool) -> tuple[Key, TextRequest | TextBlock] | None:
        best: tuple[Key, TextRequest | TextBlock] | None = None
        for block in self._blocks:
            keys = [request.key for request in block.requests() if due or not request.steps]
            if keys and (best is None or min(keys) < best[0]):
                best = min(keys), block
        for request in self._requests:
            if due or not request.steps:
                return (request.key, request) if best is None or request.key < best[0] else best
        return best

    def _form(self, first: TextRequest, due: bool, most: int) -> TextBlock:
        """A block of the request's names, and of others' with the same templates as long as there is room."""
        names: list[TextName] = []
        tokens = 0
        alike = [r for r in self._requests if r is not first and self._alike(first, r)]
        for request in [first, *(other for other in alike if due or not other.steps)]:
            for name in self._unbegun(request):
                once = (tokens + name.tokens) / len(first.templates)
                if names and tokens + name.tokens > most and (len(names) >= _NAMES_AT_ONCE or once > most):
                    return self._block(first, names)
                name.begun = True
                names.append(name)
                tokens += name.tokens
        return self._block(first, names)

    def _block(self, first: TextRequest, names: list[TextName]) -> TextBlock:
        self._requests = [one for one in self._requests if next(self._unbegun(one), None) is not None]
        return TextBlock(first.engines, first.templates, names)

    def _unbegun(self, request: TextRequest) -> Iterator[TextName]:
        """Its names that are in no block."""
        for at in range(request.begun, len(request.names)):
            name = self._names.get(self._place(request, request.names[at]))
            if name is not None and not name.begun:
                yield name
            elif at == request.begun:
                request.begun += 1

    @staticmethod
    def _alike(one: TextRequest, other: TextRequest) -> bool:
        return one.engines[0] is other.engines[0] and one.templates == other.templates

    @staticmethod
    def _place(request: TextRequest, name: str) -> tuple[int, tuple[str, ...], str]:
        return id(request.engines[0]), request.templates, name
