"""Every kernel: importing this makes all roads known. The registry does, when a road is first asked for."""

from regard.kernels.additive import cpu as additive_cpu  # noqa: F401
from regard.kernels.additive import cuda as additive_cuda  # noqa: F401
from regard.kernels.additive import look_cpu as additive_look_cpu  # noqa: F401
from regard.kernels.addressing import cpu as addressing_cpu  # noqa: F401
from regard.kernels.chain import cpu as chain_cpu  # noqa: F401
from regard.kernels.chain import events_cpu as chain_events_cpu  # noqa: F401
from regard.kernels.cleared import cpu as cleared_cpu  # noqa: F401
from regard.kernels.constituency import cpu as constituency_cpu  # noqa: F401
from regard.kernels.constituency import events_cpu as constituency_events_cpu  # noqa: F401
from regard.kernels.constituency import labels_cpu as constituency_labels_cpu  # noqa: F401
from regard.kernels.ctc import cpu as ctc_cpu  # noqa: F401
from regard.kernels.ctc import events_cpu as ctc_events_cpu  # noqa: F401
from regard.kernels.dot import cpu_cuda as dot_cpu_cuda  # noqa: F401
from regard.kernels.dot import look_cpu as dot_look_cpu  # noqa: F401
from regard.kernels.gaussian_grid import cpu as gaussian_grid_cpu  # noqa: F401
from regard.kernels.monotonic import cpu as monotonic_cpu  # noqa: F401
from regard.kernels.semi_markov import cpu as semi_markov_cpu  # noqa: F401
from regard.kernels.semi_markov import events_cpu as semi_markov_events_cpu  # noqa: F401
from regard.kernels.sparse import cpu as sparse_cpu  # noqa: F401
from regard.kernels.sparse import cuda as sparse_cuda  # noqa: F401
from regard.kernels.streamed import cpu_cuda as streamed_cpu_cuda  # noqa: F401
from regard.kernels.tree import cpu as tree_cpu  # noqa: F401
from regard.kernels.tree import events_cpu as tree_events_cpu  # noqa: F401
from regard.kernels.window import cpu as window_cpu  # noqa: F401
from regard.kernels.window import cpu_cuda as window_cpu_cuda  # noqa: F401
from regard.kernels.written import cpu as written_cpu  # noqa: F401
