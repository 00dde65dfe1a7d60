"""Nothing of torch but what the engine's zygote asks."""


class cuda:
    @staticmethod
    def is_initialized():
        return False


def set_num_threads(n):
    pass
